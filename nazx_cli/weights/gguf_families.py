"""How GGUF names and orders the tensors of each architecture; a further one is one entry here.

llama.cpp renames the tensors, orders a Llama's query and key rows for interleaved rotary pairs
where Hugging Face has half-split ones, and puts a GPT-NeoX's query, key and value rows one after
the other where Hugging Face has them head by head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nazx_cli.weights.gguf_file import GgufFile

    Arrange = Callable[[NDArray[Any], int], NDArray[Any]]


@dataclass(frozen=True)
class GgufFamily:
    """An architecture: Hugging Face's names by GGUF's, and its ``config.json``.

    ``arranged`` are the tensors whose rows are ordered otherwise: by GGUF name, how to put them
    right, and the metadata key of the number of heads that this takes.
    """

    prefix: str
    whole_model: Mapping[str, str]
    per_layer: Mapping[str, str]
    arranged: Mapping[str, tuple[Arrange, str]]
    config: Callable[[GgufFile], dict[str, Any]]


def unpermute(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Undo llama.cpp's order of the rows of a query or key projection.

    ``rows`` (heads * d, ...) has each head's dimensions as pairs (0, d/2), (1, d/2 + 1), ...;
    the result has them in their natural order 0, 1, ..., d - 1.
    """
    size = rows.shape[0]
    pairs = rows.reshape(heads, size // heads // 2, 2, -1)  # (H, d/2, 2, C)
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def interleave_heads(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """From all queries, all keys, all values to each head's query, key and value."""
    stacked = rows.reshape(3, heads, rows.shape[0] // heads // 3, -1)  # (3, H, d, C)
    return stacked.swapaxes(0, 1).reshape(rows.shape)


def decimal(value: float | np.float32) -> float:
    """A float32 as the short decimal that was meant: 1e-5, not 9.999999747378752e-06."""
    return float(f"{float(value):.6g}")


def _llama_config(file: GgufFile) -> dict[str, Any]:
    hidden, heads = file.needed("embedding_length"), file.needed("attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_key_value_heads": file.own("attention.head_count_kv", heads),
        "head_dim": file.own("attention.key_length", hidden // heads if heads else 0),
        "hidden_act": "silu",
        "rms_norm_eps": decimal(file.needed("attention.layer_norm_rms_epsilon")),
        "rope_theta": float(file.own("rope.freq_base", 10_000.0)),
        "attention_bias": "blk.0.attn_q.bias" in file.names,
        "mlp_bias": "blk.0.ffn_down.bias" in file.names,
    }


def _gpt_neox_config(file: GgufFile) -> dict[str, Any]:
    hidden, heads = file.needed("embedding_length"), file.needed("attention.head_count")
    size = hidden // heads if heads else 1
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "num_attention_heads": heads,
        "hidden_act": "gelu",
        "layer_norm_eps": decimal(file.needed("attention.layer_norm_epsilon")),
        "rotary_emb_base": float(file.own("rope.freq_base", 10_000.0)),
        "rotary_pct": file.needed("rope.dimension_count") / max(size, 1),
        "use_parallel_residual": bool(file.own("use_parallel_residual", True)),
        "attention_bias": "blk.0.attn_qkv.bias" in file.names,
    }


FAMILIES = {
    "llama": GgufFamily(
        prefix="model.layers",
        whole_model={
            "token_embd": "model.embed_tokens",
            "output_norm": "model.norm",
            "output": "lm_head",
        },
        per_layer={
            "attn_norm": "input_layernorm",
            "attn_q": "self_attn.q_proj",
            "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_norm": "post_attention_layernorm",
            "ffn_gate": "mlp.gate_proj",
            "ffn_up": "mlp.up_proj",
            "ffn_down": "mlp.down_proj",
        },
        arranged={
            "attn_q": (unpermute, "attention.head_count"),
            "attn_k": (unpermute, "attention.head_count_kv"),
        },
        config=_llama_config,
    ),
    "gptneox": GgufFamily(
        prefix="gpt_neox.layers",
        whole_model={
            "token_embd": "gpt_neox.embed_in",
            "output_norm": "gpt_neox.final_layer_norm",
            "output": "embed_out",
        },
        per_layer={
            "attn_norm": "input_layernorm",
            "attn_qkv": "attention.query_key_value",
            "attn_output": "attention.dense",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
        arranged={"attn_qkv": (interleave_heads, "attention.head_count")},
        config=_gpt_neox_config,
    ),
}
