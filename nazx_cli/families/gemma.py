"""Gemma 2 and the text part of Gemma 3: norms on both sides that add 1 to their weights, scaled
embeddings, a query scale of their own, and layers that see a window between those that see all.

Gemma 2 caps scores and logits by a tanh; Gemma 3 normalizes queries and keys, and rotates its
layers with a window by another base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nazx_cli.families.base import (
    FULL,
    NORMS_AROUND,
    SLIDING,
    Family,
    Gguf,
    GgufMetadata,
    LayerKind,
    Shape,
    by_type,
    window_of,
    with_qk_norms,
)
from nazx_cli.families.llama import biases
from nazx_cli.families.rope import RopeConfig, RopeKeys, read_rope
from nazx_cli.foreign import Fields

_GLOBAL = RopeKeys(theta=1_000_000.0)
_LOCAL = RopeKeys(theta_key="rope_local_base_freq")
_FIXED = {"norm_offset": 1.0}
_CAP = 1e6


def _read(fields: Fields, shape: Shape, caps: tuple[float | None, float | None]) -> dict[str, Any]:
    def cap(key: str, default: float | None) -> float | None:
        if fields.data.get(key) is None:
            return None if key in fields.data else default
        return fields.number(key, None, 1e-3, _CAP)

    scalar = fields.number("query_pre_attn_scalar", 256.0, 1e-3, _CAP)
    return {
        **biases(fields, shape),
        "mlp_bias": False,
        "embedding_scale": shape.hidden_size**0.5,
        "attention_scale": scalar**-0.5,
        "attention_cap": cap("attn_logit_softcapping", caps[0]),
        "logit_cap": cap("final_logit_softcapping", caps[1]),
    }


def _read2(fields: Fields, shape: Shape) -> Mapping[str, Any]:
    return _read(fields, shape, (50.0, 30.0))


def _read3(fields: Fields, shape: Shape) -> Mapping[str, Any]:
    return {**_read(fields, shape, (None, None)), "qk_norm": "head"}


def _layers2(fields: Fields, shape: Shape) -> tuple[LayerKind, ...]:
    return _pattern(fields, shape, 2, shape.rope)


def _layers3(fields: Fields, shape: Shape) -> tuple[LayerKind, ...]:
    data = {key: value for key, value in fields.data.items() if key != "rope_scaling"}
    new = data.get("rope_parameters")
    if not isinstance(new, dict) or not isinstance(new.get(SLIDING), dict):
        data |= {"rope_parameters": None, "rope_theta": None}  # older files: a base, never scaled
    local = Fields(data, fields.complain)
    rope = read_rope(local, _LOCAL, shape.head_dim, shape.max_positions, SLIDING)
    return _pattern(fields, shape, fields.count("sliding_window_pattern", 6), rope)


def _pattern(fields: Fields, shape: Shape, every: int, local: RopeConfig) -> tuple[LayerKind, ...]:
    """A layer that sees all after every - 1 that see a window."""
    words = [SLIDING if (i + 1) % every else FULL for i in range(shape.num_layers)]
    return by_type(fields, shape, window_of(fields, 4096), words, local)


def _keys2(file: GgufMetadata) -> Mapping[str, Any]:
    return {
        **_keys(file, largest=46),
        "attn_logit_softcapping": file.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": file.number("final_logit_softcapping", 30.0),
    }


def _keys3(file: GgufMetadata) -> Mapping[str, Any]:
    # A file without a window is of a model whose layers all see everything.
    has_window = file.has("attention.sliding_window")
    return {
        **_keys(file, largest=62),
        **({} if has_window else {"sliding_window_pattern": 1}),
        "rope_theta": file.number("rope.freq_base", 1_000_000.0),
        "rope_local_base_freq": file.number("rope.freq_base_swa", 10_000.0),
        "final_logit_softcapping": file.number("final_logit_softcapping", 0.0) or None,
    }


def _keys(file: GgufMetadata, largest: int) -> dict[str, Any]:
    """``largest`` is the number of layers of the only model whose scale is not its head's size."""
    hidden, heads = file.count("embedding_length"), file.count("attention.head_count")
    own = file.count("attention.key_length", max(hidden // heads, 1))
    is_largest = file.count("block_count") == largest
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": hidden // heads if is_largest else own,
        "sliding_window": file.count("attention.sliding_window", 4096),
    }


FAMILIES = (
    Family(
        "gemma2",
        NORMS_AROUND,
        fixed=_FIXED,
        read=_read2,
        layers=_layers2,
        activation=("hidden_activation", "gelu_pytorch_tanh"),
        tied=True,
        head_dim=256,
        refused={"use_bidirectional_attention": True},
        gguf=Gguf("gemma2", _keys2, offset=1.0),
    ),
    Family(
        "gemma3_text",
        with_qk_norms(NORMS_AROUND),
        fixed=_FIXED,
        read=_read3,
        layers=_layers3,
        rope=_GLOBAL,
        activation=("hidden_activation", "gelu_pytorch_tanh"),
        tied=True,
        head_dim=256,
        refused={"use_bidirectional_attention": True},
        assumed={
            "vocab_size": 262_208,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "max_position_embeddings": 131_072,
        },
        gguf=Gguf("gemma3", _keys3, offset=1.0),
    ),
)
