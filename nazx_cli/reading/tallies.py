"""How often something stands in passages, and how much that can come to in a block of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Positions: TypeAlias = "NDArray[np.integer[Any]]"
"""Of tokens: int32, or int64 where there may be more of them."""

_SHARE, _REACH = 0.5, 300  # a passage d tokens away gets share * exp(-d / reach) of a count ...
_FARTHEST = 700  # ... up to this many tokens away
_BLOCK = 8  # passages of a block, at least
ROUNDING = 2e-6
"""More than float32 rounds off where some twenty numbers are added."""
Counts: TypeAlias = "NDArray[np.integer[Any]]"


@dataclass(frozen=True)
class Blocks:
    """Passages of ``aim`` tokens in blocks of ``width``, none of two documents. What stands in a
    passage counts in part for those around it, as far as ``reach`` passages, in its document.

    begins   (B,) int32, the first passage of each block
    lows     (B,) int32, the first one of its document ...
    highs    (B,) int32, ... and the one behind its last
    """

    aim: int
    begins: NDArray[np.int32]
    lows: NDArray[np.int32]
    highs: NDArray[np.int32]

    @classmethod
    def of(cls, firsts: NDArray[np.integer[Any]], aim: int) -> Blocks:
        """Of documents that begin at passages ``firsts`` (D + 1,), the last one where they end."""
        width = _width(aim)
        many = -(-np.diff(firsts) // width)
        document = np.repeat(np.arange(len(many)), many)
        within = np.arange(len(document)) - np.repeat(np.cumsum(many) - many, many)
        lows, highs = firsts[:-1][document], firsts[1:][document]
        begins = lows + width * within
        return cls(aim, *(each.astype(np.int32) for each in (begins, lows, highs)))

    @classmethod
    def joined(
        cls, parts: Sequence[Blocks], firsts: Sequence[int], order: NDArray[np.int64]
    ) -> Blocks:
        """All blocks of ``parts``, of one aim, in ``order``; the passages of each part are numbered
        from one of ``firsts`` on."""
        lists = [
            (part.begins + first, part.lows + first, part.highs + first)
            for part, first in zip(parts, firsts, strict=True)
        ]
        begins, lows, highs = (np.concatenate(each)[order] for each in zip(*lists, strict=True))
        return cls(parts[0].aim, begins, lows, highs)

    def __len__(self) -> int:
        return len(self.begins)

    @property
    def reach(self) -> int:
        """How many passages away a passage counts."""
        return _FARTHEST // self.aim

    @property
    def width(self) -> int:
        """Passages of a block; the last one of a document may have fewer."""
        return _width(self.aim)

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """(reach,) what a count is worth that many passages away."""
        return _SHARE * np.exp(-np.arange(1, self.reach + 1) * self.aim / _REACH)

    def passages(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """(b, width) the passages of blocks ``chosen`` (b,); -1 behind the end of a document."""
        found = self.begins[chosen][:, None] + np.arange(self.width)
        return np.where(found < self.highs[chosen][:, None], found, -1)

    def around(
        self, passages: NDArray[np.int32], counts: Counts, chosen: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """(b, width + 2 reach) the counts in blocks ``chosen`` (b,) and as far before and behind
        each as they reach, of something that stands in ``passages``, ascending."""
        begins = self.begins[chosen] - self.reach
        width = self.width + 2 * self.reach
        low = np.maximum(begins, self.lows[chosen])
        high = np.minimum(begins + width, self.highs[chosen])
        first = np.searchsorted(passages, low)
        many = np.searchsorted(passages, high) - first
        at = np.repeat(first - (np.cumsum(many) - many), many) + np.arange(many.sum())
        rows = np.repeat(np.arange(len(chosen)), many)
        found = np.zeros((len(chosen), width))
        found[rows, passages[at] - begins[rows]] = counts[at]
        return found

    def spread(self, around: NDArray[np.float64]) -> NDArray[np.float64]:
        """(b, width) the count in each passage, with a share of that of each passage around it
        added; ``around`` as that gives it."""
        reach, width = self.reach, self.width
        total = around[:, reach : reach + width].copy()
        for distance, share in enumerate(self.shares, 1):
            total += share * around[:, reach - distance : reach - distance + width]
            total += share * around[:, reach + distance : reach + distance + width]
        return total

    def roughly(self, around: NDArray[Any]) -> NDArray[np.float32]:
        """As ``spread``, sooner, but for rounding: by less than ``ROUNDING`` of it."""
        return around.astype(np.float32, copy=False) @ self._spreading

    @cached_property
    def _spreading(self) -> NDArray[np.float32]:
        return self.spread(np.eye(self.width + 2 * self.reach)).astype(np.float32)

    def limits(self, passages: NDArray[np.int32], counts: Counts) -> NDArray[np.float32]:
        """(B,) at least what ``spread`` gives for any passage of each block, from what stands in
        it and in the blocks beside it."""
        blocks = self._block_of[passages]
        own = np.bincount(blocks, counts, len(self)).astype(np.float32)
        most = own.copy()
        if self.reach:
            lent = np.float32(self.shares[0] * (1 + ROUNDING)) * own
            most[1:] += np.where(self._goes_on, lent[:-1], 0)
            most[:-1] += np.where(self._goes_on, lent[1:], 0)
        return most

    @cached_property
    def _block_of(self) -> NDArray[np.int32]:
        """The block of each passage."""
        sizes = np.minimum(self.begins + self.width, self.highs) - self.begins
        return np.repeat(np.arange(len(self), dtype=np.int32), sizes)

    @cached_property
    def _goes_on(self) -> NDArray[np.bool_]:
        """(B - 1,) whether a block and the one behind it are of the same document."""
        return np.equal(self.lows[1:], self.lows[:-1])


def _width(aim: int) -> int:
    """Passages of a block: as many as one reaches at least."""
    return max(_BLOCK, _FARTHEST // aim)


class Tally(Protocol):
    """How often something stands in which passages of a library."""

    @property
    def passages(self) -> NDArray[np.int32]:
        """(k,) in which it does, each once, by the numbers that they have for the library's words:
        these need not be the library's."""

    @property
    def counts(self) -> Counts:
        """(k,) how often in each of them."""

    @property
    def holding(self) -> int:
        """How many these are."""

    @property
    def total(self) -> int:
        """How often it stands in them, in all."""

    def around(self, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        """As of ``Blocks``, of the library's blocks ``chosen``."""

    def limits(self) -> NDArray[np.float32]:
        """As of ``Blocks``, of all blocks of the library."""


@dataclass(frozen=True)
class Counted:
    """A tally that is at hand: ``passages`` ascending, ``counts`` (k,) at least 1."""

    blocks: Blocks
    passages: NDArray[np.int32]
    counts: Counts

    @property
    def holding(self) -> int:
        """See ``Tally``."""
        return len(self.passages)

    @property
    def total(self) -> int:
        """See ``Tally``."""
        return int(self.counts.sum(dtype=np.int64))

    def around(self, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        """See ``Tally``."""
        return self.blocks.around(self.passages, self.counts, chosen)

    def limits(self) -> NDArray[np.float32]:
        """See ``Tally``."""
        return self.blocks.limits(self.passages, self.counts)


def holding_any(tallies: Sequence[Tally]) -> int:
    """How many passages have one of them at least."""
    some = [tally for tally in tallies if tally.holding]
    if len(some) < 2:
        return sum(tally.holding for tally in some)
    lists = [tally.passages for tally in some]
    found = np.zeros(1 + max(int(each.max()) for each in lists), np.bool_)
    for each in lists:
        found[each] = True
    return int(np.count_nonzero(found))
