"""Logits against transformers on tiny random models: families, RoPE types, old and new keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import GPT_NEOX, LLAMA, write_checkpoint
from models import random_ids

from nazx_cli import load_model

transformers = pytest.importorskip("transformers")

ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 2.5},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "dynamic-original": {
        "rope_type": "dynamic",
        "factor": 2.0,
        "original_max_position_embeddings": 20,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    "yarn-options": {
        "rope_type": "yarn",
        "factor": 3.0,
        "original_max_position_embeddings": 24,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "mscale": 0.7,
        "mscale_all_dim": 1.1,
        "truncate": False,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}


def _theirs(folder: Path, ids: list[int]) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def _compare(folder: Path, config: dict[str, Any], length: int = 60) -> None:
    ids = random_ids(length, seed=20)
    lm = load_model(write_checkpoint(folder, config))
    want = _theirs(folder, ids)
    assert (lm.logits(ids) - want).abs().max() < 1e-4
    context = lm.new_context()
    context.append(ids[:-3])
    lm.next_logits(context)
    context.append(ids[-3:])
    assert (lm.next_logits(context) - want[-1]).abs().max() < 1e-4


@pytest.mark.parametrize("parallel", (False, True))
def test_gpt_neox_equals_transformers(tmp_path: Path, parallel: bool) -> None:
    _compare(tmp_path, {**GPT_NEOX, "use_parallel_residual": parallel})


@pytest.mark.parametrize("tied", (False, True))
@pytest.mark.parametrize("kv_heads", (1, 2, 6))
def test_llama_equals_transformers(tmp_path: Path, tied: bool, kv_heads: int) -> None:
    config = {**LLAMA, "tie_word_embeddings": tied, "num_key_value_heads": kv_heads}
    _compare(tmp_path, config)


def test_llama_with_its_own_head_size_equals_transformers(tmp_path: Path) -> None:
    _compare(tmp_path, {**LLAMA, "head_dim": 10})


@pytest.mark.parametrize("name", ROPES)
@pytest.mark.parametrize("family", (GPT_NEOX, LLAMA), ids=("gpt_neox", "llama"))
def test_every_rope_type_equals_transformers(
    tmp_path: Path, family: dict[str, Any], name: str
) -> None:
    base = {k: v for k, v in family.items() if not k.startswith(("rope", "rotary"))}
    share = {"partial_rotary_factor": 0.5} if family is GPT_NEOX else {}
    rope = {**ROPES[name], **share, "rope_theta": 5000.0}
    _compare(tmp_path, {**base, "rope_parameters": rope, "max_position_embeddings": 40})


@pytest.mark.parametrize("name", ROPES)
def test_older_rope_keys_mean_the_same_as_the_new_one(tmp_path: Path, name: str) -> None:
    ids = random_ids(60, seed=21)
    base = {k: v for k, v in LLAMA.items() if not k.startswith("rope")}
    base["max_position_embeddings"] = 40
    options = {("type" if k == "rope_type" else k): v for k, v in ROPES[name].items()}
    new = {**base, "rope_parameters": {**ROPES[name], "rope_theta": 5000.0}}
    old = {**base, "rope_theta": 5000.0, "rope_scaling": options}
    logits = [
        load_model(write_checkpoint(tmp_path / key, config)).logits(ids)
        for key, config in (("new", new), ("old", old))
    ]
    assert (logits[0] == logits[1]).all()


def test_older_gpt_neox_keys_mean_the_same_as_the_new_one(tmp_path: Path) -> None:
    ids = random_ids(30, seed=22)
    base = {k: v for k, v in GPT_NEOX.items() if not k.startswith("rotary")}
    new = {**base, "rope_parameters": {"rope_theta": 777.0, "partial_rotary_factor": 0.5}}
    old = {**base, "rotary_pct": 0.5, "rotary_emb_base": 777.0}
    logits = [
        load_model(write_checkpoint(tmp_path / key, config)).logits(ids)
        for key, config in (("new", new), ("old", old))
    ]
    assert (logits[0] == logits[1]).all()
