"""A tiny random Llama written as a GGUF file the way llama.cpp writes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import torch
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

HEADS, KV_HEADS, HIDDEN, FEED = 4, 2, 64, 96
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdefghijklmnop0123456789Ġ", "ab"]
VOCAB = len(TOKENS)
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def llama(tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=FEED,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=tied,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def permuted(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """llama.cpp's row order, one row at a time: dimension i beside dimension i + d/2."""
    size = len(rows) // heads
    order = []
    for head in range(heads):
        for pair in range(size // 2):
            order += [head * size + pair, head * size + size // 2 + pair]
    return rows[order]


def gguf_name(name: str) -> str:
    base = name.removesuffix(".weight")
    if base in TOP:
        return f"{TOP[base]}.weight"
    _, _, layer, rest = base.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}.weight"


def write_gguf(path: Path, model: LlamaForCausalLM, kinds: dict[str, Kind], **fields: Any) -> None:
    """Write ``model`` as llama.cpp would; ``kinds`` by the end of a GGUF name."""
    writer = gguf.GGUFWriter(path, fields.get("architecture", "llama"))
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(fields.get("pre", "smollm"))
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * (VOCAB - 3))
    writer.add_token_merges(["a b"])
    for name, number in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        data = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            data = permuted(data, HEADS if "q_proj" in name else KV_HEADS)
        stem = gguf_name(name).split(".")[-2]
        kind = kinds.get(stem, Kind.F32)
        writer.add_tensor(gguf_name(name), gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


NEOX_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}
NEOX_TOP = {
    "gpt_neox.embed_in": "token_embd",
    "gpt_neox.final_layer_norm": "output_norm",
    "embed_out": "output",
    "lm_head": "output",  # as transformers 5 calls it in memory
}


def gpt_neox() -> GPTNeoXForCausalLM:
    torch.manual_seed(4)
    config = GPTNeoXConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=FEED,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        max_position_embeddings=128,
        layer_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.25,
        },
        use_parallel_residual=True,
        initializer_range=0.3,
    )
    model = GPTNeoXForCausalLM(config).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                tensor.add_(0.1 * torch.randn_like(tensor))
    return model


def by_kind(rows: NDArray[Any]) -> NDArray[Any]:
    """llama.cpp's row order of a fused projection, one row at a time: all queries, all keys,
    all values, where Hugging Face has them head by head."""
    size = len(rows) // HEADS // 3
    order = [
        head * 3 * size + kind * size + row
        for kind in range(3)
        for head in range(HEADS)
        for row in range(size)
    ]
    return rows[order]


def write_neox_gguf(path: Path, model: GPTNeoXForCausalLM, kinds: dict[str, Kind]) -> None:
    """Write ``model`` as llama.cpp would; ``kinds`` by the end of a GGUF name."""
    writer = gguf.GGUFWriter(path, "gptneox")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS // 4)
    writer.add_parallel_residual(True)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("olmo")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * (VOCAB - 3))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    for name, tensor in model.state_dict().items():
        base, _, leaf = name.rpartition(".")
        if base in NEOX_TOP:
            stem, full = NEOX_TOP[base], f"{NEOX_TOP[base]}.{leaf}"
        else:
            _, _, layer, rest = base.split(".", 3)
            stem = NEOX_NAMES[rest]
            full = f"blk.{layer}.{stem}.{leaf}"
        data = by_kind(tensor.numpy()) if stem == "attn_qkv" else tensor.numpy()
        kind = kinds.get(stem, Kind.F32) if data.ndim > 1 else Kind.F32
        writer.add_tensor(full, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
