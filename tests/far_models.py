"""Tiny models with a far memory of token ids, and its folder."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from checkpoints import nazx, random_tensors, write_checkpoint
from models import BASES, WINDOWED
from torch import Tensor

from nazx_cli import load_model
from nazx_cli.checkpoint.adapters.far import write_far_adapter
from nazx_cli.engine.language_model import LanguageModel

RANK, GRAM, LOCAL, AROUND = 5, 3, 8, 4
FAR = {**WINDOWED, "far": "inattention", "far_rank": RANK, "far_window": GRAM, "far_around": AROUND}


def far_tensors(seed: int = 0, around: bool = True) -> dict[str, Tensor]:
    """A memory whose scores are large enough to change which token is likeliest."""
    generator = torch.Generator().manual_seed(seed)
    shape = (GRAM + around, RANK, 48)
    made = {f"far.{name}": torch.randn(shape, generator=generator) for name in ("keys", "queries")}
    made["far.state"] = 0.5 * torch.randn(shape, generator=generator)
    made["far.null"] = 0.3 * torch.randn(48, generator=generator)
    made["far.bias"] = torch.tensor([5.0, 0.4])
    if around:
        made["far.keys"][-1] /= 4
    return made


def with_memory(folder: Path, base: str, far: dict[str, Tensor], **load: Any) -> LanguageModel:
    config = nazx(BASES[base], FAR)
    write_checkpoint(folder, config, {**random_tensors(config), **far})
    return load_model(folder, **load)


def ids_of(rng: random.Random, count: int) -> list[int]:
    """Few different tokens, so that there is something to copy."""
    return [rng.randrange(20, 32) for _ in range(count)]


def write_memory(folder: Path, tensors: dict[str, Tensor], **changes: Any) -> Path:
    """The folder of a memory, as training writes it."""
    config = nazx(BASES["llama"], FAR)
    weights = {**random_tensors(config), **tensors}
    lm = load_model(write_checkpoint(folder / "whole", config, weights))
    memory = lm.decoder.far
    assert memory is not None
    write_far_adapter(
        folder / "far",
        lm.config.attention,
        memory,
        base="tiny",
        notes={"base": "tiny"},
        card="# Card\n",
        dtype=torch.float32,
    )
    if changes:
        path = folder / "far" / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder / "far"


def base_model(folder: Path, attention: dict[str, Any] = WINDOWED) -> Path:
    config = nazx(BASES["llama"], attention)
    return write_checkpoint(folder / "base", config, random_tensors(config))
