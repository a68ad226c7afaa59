"""Granite 3: a Llama with four multipliers: of embeddings, scores, residuals and logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nazx_cli.families.base import Family, Gguf, GgufMetadata, Shape
from nazx_cli.families.llama import bias_keys, biases
from nazx_cli.foreign import Fields


def _read(fields: Fields, shape: Shape) -> Mapping[str, Any]:
    def number(key: str) -> float:
        return fields.number(key, 1.0, 1e-6, 1e6)

    return {
        **biases(fields, shape),
        "embedding_scale": number("embedding_multiplier"),
        "attention_scale": number("attention_multiplier"),
        "residual_scale": number("residual_multiplier"),
        "logit_scale": 1.0 / number("logits_scaling"),
    }


def _keys(file: GgufMetadata) -> Mapping[str, Any]:
    return {
        **bias_keys(file),
        "embedding_multiplier": file.number("embedding_scale", 1.0),
        "attention_multiplier": file.number("attention.scale", 1.0),
        "residual_multiplier": file.number("residual_scale", 1.0),
        "logits_scaling": file.number("logit_scale", 1.0),
    }


FAMILIES = (Family("granite", read=_read, gguf=Gguf("granite", _keys, pairs=True)),)
