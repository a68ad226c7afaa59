"""Tiny models of the families as GGUF files, the way llama.cpp's converter writes them: names from
the ``gguf`` package's own table, metadata by its writer, rows and norms in llama.cpp's order."""

from __future__ import annotations

import importlib
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from family_configs import FAMILIES, random_weights
from gguf import MODEL_ARCH
from numpy.typing import NDArray
from tiny_gguf import permuted

ARCHITECTURES = {
    "llama": MODEL_ARCH.LLAMA,
    "mistral": MODEL_ARCH.LLAMA,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
    "gemma2": MODEL_ARCH.GEMMA2,
    "gemma3_text": MODEL_ARCH.GEMMA3,
    "phi3": MODEL_ARCH.PHI3,
    "granite": MODEL_ARCH.GRANITE,
    "olmo2": MODEL_ARCH.OLMO2,
    "starcoder2": MODEL_ARCH.STARCODER2,
    "smollm3": MODEL_ARCH.SMOLLM3,
}
_PERMUTED = (MODEL_ARCH.LLAMA, MODEL_ARCH.GRANITE, MODEL_ARCH.SMOLLM3)
_GEMMA = (MODEL_ARCH.GEMMA2, MODEL_ARCH.GEMMA3)

# Gemma's query scale, its pattern of layers and SmolLM3's are not in a file: they are always these.
_GEMMA_SCALE = {"query_pre_attn_scalar": 10}
_GEMMA2 = {**_GEMMA_SCALE, "rope_theta": 10_000.0}
CONFIGS: dict[str, dict[str, Any]] = {
    **{
        name: FAMILIES[name]
        for name in (
            *("qwen2", "qwen3", "mistral", "phi3", "phi3-longrope", "phi4-mini", "granite"),
            *("olmo2", "llama3", "starcoder2-plain"),
        )
    },
    "gemma2": {**FAMILIES["gemma2"], **_GEMMA2},
    "gemma2-caps": {**FAMILIES["gemma2-caps"], **_GEMMA2},
    "gemma3": {
        **FAMILIES["gemma3"],
        **_GEMMA_SCALE,
        "num_hidden_layers": 7,
        "sliding_window_pattern": 6,
        "rope_local_base_freq": 10_000.0,
    },
    "smollm3": {
        key: value for key, value in FAMILIES["smollm3"].items() if key != "no_rope_layers"
    },
    "starcoder2": {**FAMILIES["starcoder2"], "sliding_window": None, "layer_types": None},
    "llama-bias": {**FAMILIES["llama3"], "rope_scaling": None, "attention_bias": True},
    "qwen2-yarn": {
        **FAMILIES["qwen2"],
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "attention_factor": 1.2,
            "beta_fast": 20.0,
        },
    },
    "llama-linear": {
        **FAMILIES["llama3"],
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    },
}
"""Models whose files say all there is to say of them."""


def full_config(name: str) -> dict[str, Any]:
    """The configuration with transformers' own defaults, which the converter fills in too."""
    own = deepcopy(CONFIGS[name])
    library = importlib.import_module("transformers")
    made: dict[str, Any] = library.AutoConfig.for_model(own.pop("model_type"), **own).to_dict()
    return made


def write_family_gguf(path: Path, name: str, **more: Any) -> dict[str, torch.Tensor]:
    """Write the model; returns its weights under Hugging Face's names. ``more`` metadata of the
    architecture have ``__`` for a point."""
    config = full_config(name)
    arch = ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    _write_metadata(writer, config, arch)
    _write_rope(writer, config, arch)
    for key, value in more.items():
        kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
        kinds[type(value)](f"{gguf.MODEL_ARCH_NAMES[arch]}.{key.replace('__', '.')}", value)
    _write_tokens(writer, config["vocab_size"])
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    tensors = random_weights(CONFIGS[name])
    for key, tensor in tensors.items():
        stored = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert stored, key
        writer.add_tensor(stored, _arranged(key, tensor.numpy(), config, arch))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def _arranged(
    name: str, data: NDArray[Any], config: dict[str, Any], arch: MODEL_ARCH
) -> NDArray[Any]:
    if arch in _GEMMA and name.endswith("norm.weight"):
        return data + 1
    if arch in _PERMUTED and ".q_proj." in name:
        return permuted(data, config["num_attention_heads"])
    if arch in _PERMUTED and ".k_proj." in name:
        return permuted(data, config["num_key_value_heads"])
    return data


def _write_metadata(writer: gguf.GGUFWriter, config: dict[str, Any], arch: MODEL_ARCH) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    if config.get("rms_norm_eps") is not None:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if config.get("norm_epsilon") is not None:
        writer.add_layer_norm_eps(config["norm_epsilon"])
    if config.get("head_dim") is not None and arch not in (MODEL_ARCH.PHI3, MODEL_ARCH.GRANITE):
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if arch in _GEMMA:
        writer.add_sliding_window(config["sliding_window"])
    if arch == MODEL_ARCH.GEMMA2:
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if arch == MODEL_ARCH.PHI3:
        writer.add_sliding_window(config["sliding_window"] or 0)
    if arch == MODEL_ARCH.GRANITE:
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])


def _write_rope(writer: gguf.GGUFWriter, config: dict[str, Any], arch: MODEL_ARCH) -> None:
    rope = config["rope_parameters"]
    rope = rope.get("full_attention", rope)
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if arch != MODEL_ARCH.GEMMA2:  # whose is always 10,000
        writer.add_rope_freq_base(rope["rope_theta"])
    if arch == MODEL_ARCH.PHI3:
        writer.add_rope_dimension_count(int(head * rope.get("partial_rotary_factor", 1.0)))
        writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
    elif arch in _PERMUTED:
        writer.add_rope_dimension_count(head)
    if rope["rope_type"] == "longrope":
        scale = config["max_position_embeddings"] / config["original_max_position_embeddings"]
        factor = math.log(scale) / math.log(config["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + factor))
        for key in ("long_factor", "short_factor"):
            values = np.array(rope[key], np.float32)
            writer.add_tensor(f"rope_factors_{key.split('_')[0]}.weight", values)
    elif rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", _llama3_factors(rope, head))
    elif rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
        if rope["rope_type"] == "yarn":
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
            writer.add_rope_scaling_yarn_attn_factor(rope["attention_factor"])
            writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])


def _llama3_factors(rope: dict[str, Any], head: int) -> NDArray[Any]:
    """What each pair's frequency is divided by."""
    factors = []
    for at in range(0, head, 2):
        turns = rope["original_max_position_embeddings"] / (
            2 * math.pi * rope["rope_theta"] ** (at / head)
        )
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        share = min(max((turns - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - share) / rope["factor"] + share))
    return np.array(factors, np.float32)


def _write_tokens(writer: gguf.GGUFWriter, count: int) -> None:
    letters = [chr(number) for number in range(33, 127)] + ["Ġ"]
    tokens = ["<|endoftext|>", *letters]
    unused = [f"[PAD{number}]" for number in range(len(tokens), count)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens + unused)
    writer.add_token_types([3, *[1] * len(letters), *[5] * len(unused)])
    writer.add_token_merges([])
    writer.add_eos_token_id(0)
