"""Choosing the next token from logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nazx_cli.engine.grounding import PENALTY, Grounding
from nazx_cli.errors import ModelUnavailableError, NazxError, UsageError
from nazx_cli.foreign import FETCH_AGAIN, Fields, read_object

_LOOKED_AT = 64  # likeliest tokens among which one that fits the grounding is looked for
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


def published_sampling(folder: Path) -> Sampling | None:
    """How a checkpoint's ``generation_config.json`` would have tokens drawn; None where it does not
    say that they are to be.

    ``ModelUnavailableError`` for values that make no sense.
    """
    path = folder / "generation_config.json"

    def complain(what: str) -> ModelUnavailableError:
        return ModelUnavailableError(f"{path}: {what}", f"correct it or {FETCH_AGAIN}")

    try:
        fields = Fields(read_object(path), complain)
    except FileNotFoundError:
        return None
    if not fields.flag("do_sample", False):
        return None
    return Sampling(
        fields.number("temperature", 1.0, 0.0, 100.0),
        fields.count("top_k", 0, minimum=0),
        fields.number("top_p", 1.0, 0.0, 1.0),
        fields.number("min_p", 0.0, 0.0, 1.0),
        fields.number("repetition_penalty", 1.0, 0.01, 100.0),
    )


def _bounded(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise UsageError(f"{name} {value} is out of range", f"choose {low:g} to {high:g}")


class Sampler:
    """The choices of one answer: the settings, a random generator of its own, and what the answer
    is held to."""

    def __init__(self, sampling: Sampling, grounding: Grounding | None = None) -> None:
        self.sampling = sampling
        self._grounded = grounding.begin() if grounding else None
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def begin(self, token: int) -> int:
        """``token``, with which the answer begins whatever the model would say."""
        if self._grounded is not None:
            self._grounded.take(token)
        return token

    def choose(self, logits: Tensor, recent: Sequence[int] = ()) -> int:
        """The next token for ``logits`` (V,) float32, after the ``recent`` tokens; call it once
        for each token of the answer.

        ``NazxError`` where a logit is no number.
        """
        s = self.sampling
        logits = logits.detach().cpu()
        # A sum is no number where a term is none. Minus infinity alone rules a token out.
        if not math.isfinite(float(logits.sum())) and not _usable(logits):
            raise NazxError(
                "the model computes values that are no numbers: its weights are damaged",
                "run nazx verify with the model's name: it tells which tensor",
            )
        logits = penalize(logits, recent[-REPEAT_WINDOW:], s.repeat_penalty)
        token = self._likeliest(logits) if s.temperature == 0 else self._drawn(logits)
        if self._grounded is not None:
            self._grounded.take(token)
        return token

    def _likeliest(self, logits: Tensor) -> int:
        """The likeliest token, less ``PENALTY`` for one that does not fit."""
        best = int(logits.argmax())
        if self._fits(best):
            return best
        values, order = logits.topk(min(_LOOKED_AT, len(logits)))
        near = values > values[0] - PENALTY
        return next(filter(self._fits, order[near].tolist()), best)

    def _drawn(self, logits: Tensor) -> int:
        """A token drawn, with the odds of one that does not fit lowered by ``PENALTY``: it is
        drawn again but for one time in so many."""
        probabilities = distribution(logits, self.sampling)
        token = int(torch.multinomial(probabilities, 1, generator=self._random))
        if self._fits(token):
            return token
        again = torch.multinomial(probabilities, _LOOKED_AT, True, generator=self._random)
        stays = torch.rand(_LOOKED_AT, generator=self._random) < math.exp(-PENALTY)
        tries = zip(again.tolist(), stays.tolist(), strict=True)
        return next((other for other, stay in tries if stay or self._fits(other)), token)

    def _fits(self, token: int) -> bool:
        return self._grounded is None or self._grounded.fits(token)


def _usable(logits: Tensor) -> bool:
    return not bool(logits.isnan().any()) and math.isfinite(float(logits.max()))


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
