"""Tiny random checkpoints as a person would have them on disk: config, weights, tokenizer."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

GPT_NEOX: dict[str, Any] = {
    "model_type": "gpt_neox",
    "vocab_size": 300,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 256,
    "rotary_pct": 0.5,
    "rotary_emb_base": 10000,
    "use_parallel_residual": False,
    "tie_word_embeddings": False,
}
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


def nazx(base: dict[str, Any], attention: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A NazX config on top of a base family's."""
    return {
        **base,
        "model_type": "nazx",
        "base_model_type": base["model_type"],
        "attention": attention,
        **changes,
    }


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes as transformers writes them."""
    c, v, inner = config["hidden_size"], config["vocab_size"], config["intermediate_size"]
    family = config.get("base_model_type", config["model_type"])
    out: dict[str, tuple[int, ...]] = {}
    window = config.get("attention", {}).get("initial_window", 1)
    if window > 1:
        out["initial_conv.weight"] = (window, config["hidden_size"])
    if family == "gpt_neox":
        out["gpt_neox.embed_in.weight"] = (v, c)
        for i in range(config["num_hidden_layers"]):
            p = f"gpt_neox.layers.{i}."
            for norm in ("input_layernorm", "post_attention_layernorm"):
                out[f"{p}{norm}.weight"] = out[f"{p}{norm}.bias"] = (c,)
            for name, rows, columns in (
                ("attention.query_key_value", 3 * c, c),
                ("attention.dense", c, c),
                ("mlp.dense_h_to_4h", inner, c),
                ("mlp.dense_4h_to_h", c, inner),
            ):
                out[f"{p}{name}.weight"], out[f"{p}{name}.bias"] = (rows, columns), (rows,)
        out["gpt_neox.final_layer_norm.weight"] = out["gpt_neox.final_layer_norm.bias"] = (c,)
        out["embed_out.weight"] = (v, c)
        return out
    dim = config.get("head_dim") or c // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    out["model.embed_tokens.weight"] = (v, c)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        out[f"{p}input_layernorm.weight"] = out[f"{p}post_attention_layernorm.weight"] = (c,)
        attends, feeds = config.get("attention_bias"), config.get("mlp_bias")
        for name, rows, columns, biased in (
            ("self_attn.q_proj", q, c, attends or family == "qwen2"),
            ("self_attn.k_proj", kv, c, attends or family == "qwen2"),
            ("self_attn.v_proj", kv, c, attends or family == "qwen2"),
            ("self_attn.o_proj", c, q, attends),
            ("mlp.gate_proj", inner, c, feeds),
            ("mlp.up_proj", inner, c, feeds),
            ("mlp.down_proj", c, inner, feeds),
        ):
            out[f"{p}{name}.weight"] = (rows, columns)
            if biased:
                out[f"{p}{name}.bias"] = (rows,)
    out["model.norm.weight"] = (c,)
    if not config.get("tie_word_embeddings"):
        out["lm_head.weight"] = (v, c)
    return out


def random_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights that keep logits of order 1 and make attention matter: norm weights and biases
    are random too, and query/key matrices large enough for attention to be far from flat."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, shape in shapes(config).items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("norm.weight"):
            out[name] = 1 + 0.2 * noise
        elif len(shape) == 1:
            out[name] = 0.1 * noise
        elif "embed_tokens" in name or "embed_in" in name:
            out[name] = 0.5 * noise
        elif name == "initial_conv.weight":
            out[name] = noise
        else:
            gain = 2.0 if any(key in name for key in ("query_key", "q_proj", "k_proj")) else 0.7
            out[name] = gain * noise / shape[1] ** 0.5
    return out


@lru_cache(maxsize=1)
def byte_tokenizer_json() -> str:
    """A byte-level BPE of 300 entries: 2 special tokens, 256 bytes, a few merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = (Path(__file__).parent / "data" / "alice.txt").read_text(encoding="utf-8")
    tokenizer.train_from_iterator([text[:40_000]], trainer)
    return str(tokenizer.to_str())


CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_checkpoint(
    folder: Path,
    config: dict[str, Any],
    tensors: dict[str, torch.Tensor] | None = None,
    chat: bool = True,
    seed: int = 0,
) -> Path:
    """Write a whole checkpoint folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    weights = random_tensors(config, seed) if tensors is None else tensors
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(byte_tokenizer_json())
    settings: dict[str, Any] = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}
    if chat:
        settings["chat_template"] = CHAT_TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
