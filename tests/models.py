"""Loaded tiny models for tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import torch
from checkpoints import GPT_NEOX, LLAMA, nazx, random_tensors, write_checkpoint
from reference import Reference

from nazx_cli.engine.language_model import LanguageModel, load_model

INATTENTION = {"kind": "inattention"}
CONVOLVED = {"kind": "inattention", "initial_window": 3}
WINDOWED = {"kind": "windowed", "local_window": 8, "sink_tokens": 3, "far": "none"}
FULL = {"kind": "full"}
ATTENTION = {
    "inattention": INATTENTION,
    "convolved": CONVOLVED,
    "windowed": WINDOWED,
    "full": FULL,
}
BASES: dict[str, dict[str, Any]] = {
    "neox-sequential": GPT_NEOX,
    "neox-parallel": {**GPT_NEOX, "use_parallel_residual": True},
    "llama": LLAMA,
}


@cache
def _home() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="nazx-test-")


def new_folder() -> Path:
    """An empty folder for what many tests share; it goes when this process does."""
    return Path(mkdtemp(dir=_home().name))


@cache
def checkpoint(base: str, kind: str) -> tuple[Path, dict[str, Any]]:
    """A folder with random weights, and its config."""
    config = nazx(BASES[base], ATTENTION[kind])
    return write_checkpoint(new_folder() / f"{base}-{kind}", config), config


def model(
    base: str,
    kind: str,
    dtype: str = "float32",
    layout: str = "auto",
    quantize: str | None = None,
) -> LanguageModel:
    """The loaded model of ``checkpoint``."""
    return load_model(checkpoint(base, kind)[0], dtype=dtype, quantize=quantize, layout=layout)


@cache
def reference(base: str, kind: str) -> Reference:
    """The slow float64 decoder on the same weights."""
    config = checkpoint(base, kind)[1]
    return Reference(config, random_tensors(config))


@cache
def _last_logits(base: str, kind: str, ids: tuple[int, ...]) -> torch.Tensor:
    return reference(base, kind).logits(list(ids))[-1]


def last_logits(base: str, kind: str, ids: list[int]) -> torch.Tensor:
    """The reference's logits after ``ids``: it is slow, and asked about the same ids by many."""
    return _last_logits(base, kind, tuple(ids))


def random_ids(count: int, seed: int, vocab: int = 300) -> list[int]:
    """Uniform random token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab, (count,), generator=generator).tolist()


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is wanted."""
    return float((got.double() - want.double()).norm() / want.double().norm())
