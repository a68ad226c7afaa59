"""Tiny configurations of every family, in the keys that its published files have."""

from __future__ import annotations

import importlib
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from checkpoints import nazx, write_checkpoint

_TINY: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rope_theta": 5000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_LONGROPE = {
    "type": "longrope",
    "short_factor": [1.0, 1.1, 1.3, 1.6],
    "long_factor": [1.0, 2.0, 4.0, 9.5],
}
_TYPES = ["full_attention", "sliding_attention"] * 2  # which not every family asks for
_PHI3 = {**_TINY, "model_type": "phi3", "hidden_size": 48, "num_attention_heads": 6}
_GEMMA = {
    **_TINY,
    "head_dim": 10,
    "query_pre_attn_scalar": 12,
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 9,
}

FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {**_TINY, "model_type": "qwen2", "tie_word_embeddings": True},
    "qwen2-window": {
        **_TINY,
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 9,
        "max_window_layers": 2,
    },
    "qwen3": {**_TINY, "model_type": "qwen3", "head_dim": 10, "attention_bias": False},
    "mistral": {**_TINY, "model_type": "mistral", "sliding_window": None, "head_dim": 12},
    "mistral-window": {**_TINY, "model_type": "mistral", "sliding_window": 11},
    "ministral": {
        **_TINY,
        "model_type": "ministral",
        "head_dim": 8,
        "sliding_window": 11,
        "layer_types": ["full_attention", *["sliding_attention"] * 3],
    },
    "gemma2": {**_GEMMA, "model_type": "gemma2"},
    "gemma2-caps": {
        **_GEMMA,
        "model_type": "gemma2",
        "attn_logit_softcapping": 0.5,
        "final_logit_softcapping": 0.7,
    },
    "gemma3": {
        **_GEMMA,
        "model_type": "gemma3_text",
        "sliding_window_pattern": 3,
        "rope_theta": 90_000.0,
        "rope_local_base_freq": 700.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "gemma3-new-keys": {
        **{key: value for key, value in _GEMMA.items() if key != "rope_theta"},
        "model_type": "gemma3_text",
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {
            "full_attention": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 90_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 700.0},
        },
    },
    "phi3": {**_PHI3, "sliding_window": 11, "layer_types": _TYPES},
    "phi3-longrope": {
        **_PHI3,
        "original_max_position_embeddings": 40,
        "rope_scaling": _LONGROPE,
        "tie_word_embeddings": True,
    },
    "phi4-mini": {
        **_PHI3,
        "hidden_size": 60,
        "num_attention_heads": 5,
        "num_key_value_heads": 1,
        "partial_rotary_factor": 0.67,
        "original_max_position_embeddings": 40,
        "rope_scaling": _LONGROPE,
    },
    "smollm3": {**_TINY, "model_type": "smollm3", "no_rope_layers": [1, 1, 0, 1]},
    "smollm3-window": {
        **_TINY,
        "model_type": "smollm3",
        "sliding_window": 9,
        "layer_types": _TYPES,
    },
    "granite": {
        **_TINY,
        "model_type": "granite",
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.1,
        "residual_multiplier": 0.22,
        "logits_scaling": 8.0,
        "tie_word_embeddings": True,
    },
    "olmo2": {**_TINY, "model_type": "olmo2"},
    "llama3": {
        **_TINY,
        "model_type": "llama",
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "starcoder2": {
        **_TINY,
        "model_type": "starcoder2",
        "sliding_window": 11,
        "layer_types": _TYPES,
    },
    "starcoder2-plain": {**_TINY, "model_type": "starcoder2", "use_bias": False},
}
"""By a name of its own each; ``model_type`` says the family."""


@cache
def family_tensors(name: str) -> dict[str, torch.Tensor]:
    """``random_weights`` of the configuration of that name."""
    return random_weights(FAMILIES[name], len(name))


def random_weights(config: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the names, and in the shapes, that transformers has them."""
    library = importlib.import_module("transformers")
    settings = deepcopy(config)  # transformers writes into what it is given
    kind = settings.pop("model_type")
    model = library.AutoModelForCausalLM.from_config(library.AutoConfig.for_model(kind, **settings))
    generator = torch.Generator().manual_seed(seed)
    tied = config.get("tie_word_embeddings", model.config.tie_word_embeddings)
    tensors = {}
    for key, shape in ((key, value.shape) for key, value in model.state_dict().items()):
        noise = torch.randn(shape, generator=generator)
        if key == "lm_head.weight" and tied:
            continue
        if key.endswith("norm.weight"):
            tensors[key] = (0.0 if kind.startswith("gemma") else 1.0) + 0.2 * noise
        elif len(shape) == 1:
            tensors[key] = 0.1 * noise
        elif "embed_tokens" in key:
            tensors[key] = 0.5 * noise
        else:
            gain = 2.0 if any(part in key for part in ("q_proj", "k_proj", "qkv_proj")) else 0.7
            tensors[key] = gain * noise / shape[1] ** 0.5
    return tensors


def write_family(folder: Path, name: str, attention: dict[str, Any] | None = None) -> Path:
    """A checkpoint folder of the family's configuration, or of one of NazX's on top of it."""
    config = FAMILIES[name]
    return write_checkpoint(
        folder, nazx(config, attention) if attention else config, family_tensors(name)
    )
