"""Llama and those that differ from it by a setting: Mistral, Ministral, SmolLM3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nazx_cli.families.base import (
    FULL,
    SLIDING,
    Family,
    Gguf,
    GgufMetadata,
    LayerKind,
    Shape,
    by_type,
    sliding,
    window_of,
)
from nazx_cli.families.rope import RopeKeys
from nazx_cli.foreign import Fields


def biases(fields: Fields, shape: Shape) -> Mapping[str, Any]:
    """``attention_bias`` for all four projections, ``mlp_bias`` for the feed-forward part."""
    bias = fields.flag("attention_bias", False)
    return {"qkv_bias": bias, "out_bias": bias, "mlp_bias": fields.flag("mlp_bias", False)}


def bias_keys(file: GgufMetadata) -> Mapping[str, Any]:
    """The same from the names in a GGUF file."""
    return {
        "attention_bias": "blk.0.attn_q.bias" in file.names,
        "mlp_bias": "blk.0.ffn_down.bias" in file.names,
    }


def _llama_keys(file: GgufMetadata) -> Mapping[str, Any]:
    return {"architectures": ["LlamaForCausalLM"], **bias_keys(file)}


def _unrotated(fields: Fields, shape: Shape) -> tuple[LayerKind, ...]:
    """SmolLM3: ``no_rope_layers`` holds 1 for layers that are rotated, 0 for those that are not;
    by default every fourth is not."""
    interval = fields.count("no_rope_layer_interval", 4)
    default = [int((i + 1) % interval != 0) for i in range(shape.num_layers)]
    rotated = fields.items("no_rope_layers", int) or default
    if len(rotated) < shape.num_layers:
        raise fields.complain(f"no_rope_layers names {len(rotated)} of {shape.num_layers} layers")
    window, slides = window_of(fields), fields.flag("use_sliding_window", False)
    words = [SLIDING if window and slides and not turned else FULL for turned in rotated]
    seen = by_type(fields, shape, window, words)
    return tuple(
        LayerKind(kind.window, shape.rope if turned else None)
        for kind, turned in zip(seen, rotated, strict=False)
    )


def _typed(fields: Fields, shape: Shape) -> tuple[LayerKind, ...]:
    """Ministral: ``sliding_window`` in the layers that ``layer_types`` names, or in all."""
    window = window_of(fields)
    return by_type(fields, shape, window, [SLIDING if window else FULL] * shape.num_layers)


FAMILIES = (
    Family("llama", read=biases, gguf=Gguf("llama", _llama_keys, pairs=True)),
    Family("mistral", layers=sliding),
    Family("ministral", layers=_typed),
    Family(
        "smollm3",
        read=biases,
        layers=_unrotated,
        rope=RopeKeys(theta=2_000_000.0),
        tied=True,
        gguf=Gguf("smollm3", bias_keys, pairs=True),
    ),
)
