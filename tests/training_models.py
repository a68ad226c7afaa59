"""Tiny models and packs for tests of training."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from checkpoints import LLAMA, write_checkpoint
from models import BASES

from nazx_cli import load_model
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.training.lora import Adapted, LoraSettings, attach
from nazx_cli.training.packing import Branch, Pack

BIASED: dict[str, dict[str, Any]] = {
    "qwen2": {**LLAMA, "model_type": "qwen2"},
    "llama-biased": {**LLAMA, "attention_bias": True, "mlp_bias": True},
}
WIDE = {**LLAMA, "max_position_embeddings": 4096}


def fresh(folder: Path, base: str = "llama", dtype: str = "float32") -> LanguageModel:
    """A model of its own, since training changes it."""
    config = {**(BASES | BIASED)[base], "max_position_embeddings": 4096}
    if not folder.exists():
        write_checkpoint(folder, config)
    return load_model(folder, dtype=dtype)


def random_pack(seed: int, prefix: int = 20, branches: int = 3) -> Pack:
    """Random ids; lengths vary from branch to branch."""
    rng = random.Random(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(300) for _ in range(count))

    made = tuple(Branch(ids(rng.randint(1, 9)), ids(rng.randint(1, 7))) for _ in range(branches))
    return Pack(ids(prefix), made, "random")


def with_random_additions(
    lm: LanguageModel, settings: LoraSettings, seed: int = 0
) -> list[Adapted]:
    """Additions that make a difference."""
    torch.manual_seed(seed)
    adapted = attach(lm.decoder, settings)
    for each in adapted:
        for up in each.layer.up:
            torch.nn.init.normal_(up, std=0.1)
        each.layer.refresh(lm.decoder.dtype)
    return adapted
