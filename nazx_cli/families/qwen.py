"""Qwen2 and Qwen2.5 (biases on query, key and value), Qwen3 (queries and keys normalized)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nazx_cli.families.base import (
    FULL,
    SLIDING,
    Family,
    Gguf,
    LayerKind,
    Names,
    Shape,
    by_type,
    window_of,
    with_qk_norms,
)
from nazx_cli.families.llama import bias_keys, biases
from nazx_cli.foreign import Fields


def _layers(fields: Fields, shape: Shape) -> tuple[LayerKind, ...]:
    """A window, if any, on the layers from ``max_window_layers`` on."""
    window = window_of(fields, 4096) if fields.flag("use_sliding_window", False) else None
    first = fields.count("max_window_layers", 28, 0)
    words = [
        SLIDING if window is not None and i >= first else FULL for i in range(shape.num_layers)
    ]
    return by_type(fields, shape, window, words)


def _read(fields: Fields, shape: Shape) -> Mapping[str, Any]:
    return {**biases(fields, shape), "mlp_bias": False, "qk_norm": "head"}


FAMILIES = (
    Family("qwen2", fixed={"qkv_bias": True}, layers=_layers, gguf=Gguf("qwen2")),
    Family(
        "qwen3",
        with_qk_norms(Names()),
        read=_read,
        layers=_layers,
        head_dim=128,
        gguf=Gguf("qwen3", bias_keys),
    ),
)
