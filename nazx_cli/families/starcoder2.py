"""StarCoder2: LayerNorm and biases everywhere, no gate, a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nazx_cli.families.base import Family, Gguf, GgufMetadata, Names, Shape, sliding
from nazx_cli.foreign import Fields, decimal


def _read(fields: Fields, shape: Shape) -> Mapping[str, Any]:
    bias = fields.flag("use_bias", True)
    return {"qkv_bias": bias, "out_bias": bias, "mlp_bias": bias}


def _keys(file: GgufMetadata) -> Mapping[str, Any]:
    return {
        "hidden_act": "gelu_pytorch_tanh",
        "norm_epsilon": decimal(file.number("attention.layer_norm_epsilon")),
        "use_bias": "blk.0.attn_q.bias" in file.names,
    }


FAMILIES = (
    Family(
        "starcoder2",
        Names(gate_up=("mlp.c_fc",), down="mlp.c_proj"),
        fixed={"norm": "layer", "gated": False},
        read=_read,
        layers=sliding,
        eps=("norm_epsilon", 1e-5),
        activation=("hidden_act", "gelu_pytorch_tanh"),
        tied=True,
        gguf=Gguf("starcoder2", _keys),
    ),
)
