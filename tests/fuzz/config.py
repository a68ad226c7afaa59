"""The JSON files of a checkpoint and of an adapter, with parts changed or damaged as bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from family_configs import FAMILIES

from fuzz.checkpoints import as_json, model_case, tiny_files
from fuzz.law import Case
from fuzz.mutate import mutated, mutated_json

_FILES = ("config.json", "config.json", "tokenizer_config.json", "generation_config.json")
_MORE: dict[str, Any] = {  # keys that the tiny config does without
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256},
    "rope_parameters": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0},
    "head_dim": 8,
    "attention_bias": False,
    "quantization": {"method": "bitsandbytes", "kind": "nf4", "block_size": 64},
    "partial_rotary_factor": 0.5,
    "eos_token_id": [258, 1],
}
_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "intermediate_size"),
)
_LEAVES = (
    *("llama", "gpt_neox", "nazx", "full", "inattention", "windowed", "silu", "gelu", "yarn"),
    *("gemma2", "qwen3", "phi3", "longrope", "sliding_attention", "full_attention", None, True),
    *(3, 7, 64, 4096, 1 << 31, 0.1, 0.25, 1e-13, "4", [258], {"content": "x"}, "<|im_end|>"),
)
_TOKENS = (b"{", b"}", b"[", b"]", b'"', b":", b",", b"NaN", b"1e999", b"\\ud800", b"null", b"true")
_ADAPTER: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "alpha_pattern": {"q_proj": 8},
    "use_rslora": False,
    "bias": "none",
    "target_modules": ["q_proj"],
    "nazx": {"base": "x", "answers": "cited"},
}


def cases(rng: random.Random) -> Iterator[Case]:
    """Without end."""
    while True:
        if rng.random() < 0.1:
            yield _adapter(rng)
            continue
        name = rng.choice(_FILES)
        value = json.loads(tiny_files()[name])
        if name == "config.json" and rng.random() < 0.5:
            value = _of_another_family(rng, value)
        elif name == "config.json":
            extra = rng.sample(sorted(_MORE), rng.randint(0, 3))
            value |= {key: _MORE[key] for key in extra}
        yield model_case(rng, name, {name: _damaged(rng, value)})


def _of_another_family(rng: random.Random, value: dict[str, Any]) -> dict[str, Any]:
    """A family's own settings with the tiny model's sizes, so that its weights nearly fit."""
    family = FAMILIES[rng.choice(sorted(FAMILIES))]
    if rng.random() < 0.2:
        return {"model_type": "gemma3", "text_config": family}
    if rng.random() < 0.5:
        return family
    return {**family, **{key: value[key] for key in _SIZES if key in value}}


def _damaged(rng: random.Random, value: Any) -> bytes:
    if rng.random() < 0.7:
        return as_json(mutated_json(rng, value, _LEAVES))
    return mutated(rng, as_json(value), _TOKENS)


def _adapter(rng: random.Random) -> Case:
    files = {
        "adapter/adapter_config.json": _damaged(rng, _ADAPTER),
        "adapter/adapter_model.safetensors": b"\x02\0\0\0\0\0\0\0{}",
    }
    argv = rng.choice(
        (
            ("show", "adapter"),
            ("verify", "adapter"),
            ("ask", "--model", "../model", "--adapter", "adapter", "Why?"),
        )
    )
    return Case("adapter_config.json", argv, files)
