"""OLMo 2: what comes out of attention and feed-forward is normalized, not what goes in; queries
and keys are normalized over all heads together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nazx_cli.families.base import Family, Gguf, Names, Shape, with_qk_norms
from nazx_cli.families.llama import bias_keys, biases
from nazx_cli.foreign import Fields

_NAMES = with_qk_norms(
    Names(
        attention_norm="",
        attention_norm_after="post_attention_layernorm",
        mlp_norm="",
        mlp_norm_after="post_feedforward_layernorm",
    )
)


def _read(fields: Fields, shape: Shape) -> Mapping[str, Any]:
    return {**biases(fields, shape), "mlp_bias": False, "qk_norm": "all"}


FAMILIES = (
    Family(
        "olmo2",
        _NAMES,
        read=_read,
        eps=("rms_norm_eps", 1e-5),
        gguf=Gguf("olmo2", bias_keys, refused={"attention.sliding_window": "OLMo 3"}),
    ),
)
