"""GPT-NeoX (Pythia): LayerNorm, biases, no gate, a quarter of each head rotated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nazx_cli.families.base import Family, Gguf, GgufMetadata, Names, Shape
from nazx_cli.families.rope import RopeKeys
from nazx_cli.foreign import Fields, decimal

_NAMES = Names(
    embed="gpt_neox.embed_in",
    layers="gpt_neox.layers",
    final_norm="gpt_neox.final_layer_norm",
    head="embed_out",
    qkv=("attention.query_key_value",),
    out="attention.dense",
    gate_up=("mlp.dense_h_to_4h",),
    down="mlp.dense_4h_to_h",
)


def _read(fields: Fields, shape: Shape) -> Mapping[str, Any]:
    bias = fields.flag("attention_bias", True)
    parallel = fields.flag("use_parallel_residual", True)
    return {"qkv_bias": bias, "out_bias": bias, "parallel_residual": parallel}


def _config(file: GgufMetadata) -> Mapping[str, Any]:
    heads = file.count("attention.head_count")
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "hidden_act": "gelu",
        "layer_norm_eps": decimal(file.number("attention.layer_norm_epsilon")),
        "rotary_emb_base": file.number("rope.freq_base", 10_000.0),
        "rotary_pct": file.count("rope.dimension_count")
        / max(file.count("embedding_length") // heads, 1),
        "use_parallel_residual": file.flag("use_parallel_residual", True),
        "attention_bias": "blk.0.attn_qkv.bias" in file.names,
    }


FAMILIES = (
    Family(
        "gpt_neox",
        _NAMES,
        fixed={"norm": "layer", "gated": False, "mlp_bias": True, "heads_interleaved": True},
        read=_read,
        rope=RopeKeys(theta_key="rotary_emb_base", share_key="rotary_pct", share=0.25),
        eps=("layer_norm_eps", 1e-5),
        activation=("hidden_act", "gelu"),
        shares_keys=False,
        gguf=Gguf("gptneox", _config, by_head=True),
    ),
)
