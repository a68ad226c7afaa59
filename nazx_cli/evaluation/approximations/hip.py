"""Hierarchical pruning of keys as in InfiniteHiP (arXiv 2502.08910): chunks of keys are left out
by what stands for them, then chunks within those that are left, so that few keys are read one by
one.

The paper keeps a fixed number of keys; here a share of the attention is to be kept, so that it
shows how many keys that takes. The first chunk and the query's own are always kept, as sinks and
latest keys are there. Of the rest each level leaves out the lightest chunks whose masses add up
to no more than its part of what may be lost. Two ways of taking a chunk's mass, n exp(q . k) for
its n keys:

hip       of the mean key. Never more than the true mass (Jensen), often much less: no promise
hip-sure  of the largest product that any key within the chunk's box, the least and greatest value
          of each dimension, could have. Never less than the true mass, so that the share is kept
          for certain, of every head and query: what exactness costs

The total that those are a share of is reckoned from what is kept and mean keys, and never too
large.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from nazx_cli.evaluation.approximations.base import (
    Selecting,
    Sizes,
    chunked,
    score,
    spread,
)

_SIZES = (64, 8)  # keys of a chunk, level by level


class Hip(Selecting):
    """Keeps so many hundredths of the attention, by mean keys."""

    name, form, least = "hip", "hip:PERCENT", (1,)
    representatives: ClassVar[int] = 1
    """Vectors that stand for a chunk."""

    def __init__(self, percent: int = 99) -> None:
        super().__init__(percent)
        self.loss = max(0, 100 - percent) / 100 / len(_SIZES)
        """Share of the attention that a level may leave out."""

    def held(self, sizes: Sizes, count: int) -> int:
        chunks = self.representatives * sum(count // size for size in _SIZES)
        return sizes.position * count + chunks * sizes.key

    def prepared(self, k: Tensor) -> list[Tensor]:
        """Mean keys of each level, (kv_heads, m, D)."""
        return [chunked(k, size).mean(2) for size in _SIZES]

    def kept(
        self, q: Tensor, scores: Tensor, prepared: list[Tensor], positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        q, count, largest = q.float(), scores.shape[-1], _SIZES[0]
        own = positions[:, None] // largest
        chunk = torch.arange(count, device=q.device) // largest
        always = (chunk == 0) | (chunk == own)  # (R, n)
        known = scores.masked_fill(~always, -torch.inf).logsumexp(-1)
        chunks = torch.arange(-(-count // largest), device=q.device)
        left = ((chunks > 0) & (chunks < own)).expand(len(q), -1, -1)  # (heads, R, m)
        read = torch.zeros_like(known)
        for level, size in enumerate(_SIZES):
            if level:
                left = left.repeat_interleave(_SIZES[level - 1] // size, -1)
            means, *box = prepared[level :: len(_SIZES)]
            left = left[..., : means.shape[1]]
            read += self.representatives * left.sum(-1)
            left = left & ~self._light(
                q, means[:, : left.shape[-1]], box, left, known, math.log(size)
            )
        return spread(left, _SIZES[-1], count) | always, read

    def _light(
        self,
        q: Tensor,
        means: Tensor,
        box: list[Tensor],
        left: Tensor,
        known: Tensor,
        share: float,
    ) -> Tensor:
        """(heads, R, m) bool: chunks among those ``left`` that may be left out."""
        least = (score(q, means) + share).masked_fill_(~left, -torch.inf)
        total = torch.logaddexp(known, least.logsumexp(-1))
        mass = self._mass(q, least, box, share).masked_fill(~left, -torch.inf)
        ordered, at = (mass - total[..., None]).exp().sort(-1)
        return torch.zeros_like(left).scatter(-1, at, ordered.cumsum(-1) <= self.loss)

    def _mass(self, q: Tensor, least: Tensor, box: list[Tensor], share: float) -> Tensor:
        """Logarithms of what chunks are taken to weigh."""
        return least


class SureHip(Hip):
    """The same by boxes."""

    name, form = "hip-sure", "hip-sure:PERCENT"
    representatives = 3

    def prepared(self, k: Tensor) -> list[Tensor]:
        """Mean keys of each level, then least, then greatest values."""
        chunks = [chunked(k, size) for size in _SIZES]
        return [
            *(each.mean(2) for each in chunks),
            *(each.amin(2) for each in chunks),
            *(each.amax(2) for each in chunks),
        ]

    def _mass(self, q: Tensor, least: Tensor, box: list[Tensor], share: float) -> Tensor:
        low, high = (each[:, : least.shape[-1]] for each in box)
        return score(q.clamp(min=0), high).add_(score(q.clamp(max=0), low)).add_(share)
