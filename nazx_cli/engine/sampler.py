"""The choices of one answer: the next token from logits, by the settings of ``sampling``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nazx_cli.engine.grounding import PENALTY, Grounding
from nazx_cli.engine.sampling import Sampling
from nazx_cli.errors import NazxError

_LOOKED_AT = 64  # likeliest tokens among which one that fits the grounding is looked for
REPEAT_WINDOW = 64
"""How many of an answer's latest tokens the repeat penalty looks back on."""


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
        stays = torch.rand(1 + _LOOKED_AT, generator=self._random) < math.exp(-PENALTY)
        tries = zip([token, *again.tolist()], stays.tolist(), strict=True)
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
