"""Choosing the next token from logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nazx_cli.errors import UsageError

REPEAT_WINDOW = 64
"""How many of an answer's latest tokens the repeat penalty looks back on."""


@dataclass(frozen=True)
class Sampling:
    """How to choose; the defaults are greedy.

    temperature     0 takes the likeliest token; otherwise logits are divided by it
    top_k           keep the k likeliest; 0 keeps all
    top_p           keep the smallest set whose probability reaches p (nucleus sampling)
    min_p           drop tokens less likely than min_p times the likeliest
    repeat_penalty  divide positive and multiply negative logits of recent tokens; 1 is off
    seed            the same seed gives the same text; None draws a new one
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _bounded("temperature", self.temperature, 0.0, 100.0)
        _bounded("top-k", self.top_k, 0, 1 << 31)
        _bounded("top-p", self.top_p, 0.0, 1.0)
        _bounded("min-p", self.min_p, 0.0, 1.0)
        _bounded("repeat-penalty", self.repeat_penalty, 0.01, 100.0)
        if self.seed is not None:
            _bounded("seed", self.seed, 0, (1 << 63) - 1)


def _bounded(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise UsageError(f"{name} {value} is out of range", f"choose {low:g} to {high:g}")


class Sampler:
    """One run of choices: the settings and a random generator of its own."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def choose(self, logits: Tensor, recent: Sequence[int] = ()) -> int:
        """The next token for ``logits`` (V,) float32, after the ``recent`` tokens."""
        s = self.sampling
        logits = penalize(logits.detach().cpu(), recent[-REPEAT_WINDOW:], s.repeat_penalty)
        if s.temperature == 0:
            return int(logits.argmax())
        probabilities = distribution(logits, s)
        return int(torch.multinomial(probabilities, 1, generator=self._random))


def penalize(logits: Tensor, recent: Sequence[int], penalty: float) -> Tensor:
    """Logits (V,) with those of ``recent`` tokens made less likely (CTRL, arXiv 1909.05858)."""
    if penalty == 1.0 or not len(recent):
        return logits
    at = torch.tensor(sorted(set(recent)), dtype=torch.int64)
    picked = logits[at]
    changed = logits.clone()
    changed[at] = torch.where(picked > 0, picked / penalty, picked * penalty)
    return changed


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities (V,) after temperature, then top-k, min-p and top-p, renormalised.

    The likeliest token always stays.
    """
    scaled = (logits - logits.max()).double() / sampling.temperature
    keep = len(scaled)
    if 0 < sampling.top_k < keep:
        keep = sampling.top_k
    values, order = scaled.topk(keep)  # descending
    p = values.softmax(0)
    if sampling.min_p > 0:
        p = torch.where(p >= sampling.min_p * p[0], p, 0.0)
        p = p / p.sum()
    if sampling.top_p < 1:
        before = p.cumsum(0) - p
        kept = before < sampling.top_p
        kept[0] = True
        p = torch.where(kept, p, 0.0)
    return torch.zeros_like(scaled).scatter_(0, order, p / p.sum())
