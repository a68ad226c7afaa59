"""The index of a context for the compiled kernel: posting lists that edits are applied to.

An edit costs one pass over the positions (some milliseconds for 1,000,000), and only when the
next token is asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nazx_cli.context.native.phases import PhaseTables
from nazx_cli.context.native.position_lists import PositionLists
from nazx_cli.context.projections import Projections
from nazx_cli.context.slots import SlotTable
from nazx_cli.context.tokens import TokenSequence

_MOST_EDITS = 8  # more than this before the next token: building anew is as quick


class ListIndex:
    """Posting lists by slot; ``slots`` tells which token has which."""

    def __init__(self, projections: Projections) -> None:
        self.slots = SlotTable(projections.config.vocab_size)
        self.lists = PositionLists()
        self.phases = PhaseTables(projections)
        self._reach = 0  # positions that they will hold or miss once the edits are applied
        self._edits: list[tuple[int, int, int]] = []  # (at, removed, added), waiting

    @property
    def nbytes(self) -> int:
        """Bytes of positions, offsets, phases and slots."""
        return self.lists.nbytes + self.phases.nbytes + self.slots.nbytes

    def edited(self, at: int, removed: int, added: int) -> None:
        """Positions at..at+removed-1 go, and ``added`` new ones come in their place."""
        if at >= self._reach:
            return
        removed = min(removed, self._reach - at)
        self._edits.append((at, removed, added))
        self._reach += added - removed
        if len(self._edits) > _MOST_EDITS:
            self._clear()

    def sync(self, tokens: TokenSequence) -> Tensor:
        """Take in what is new; returns ids (n,) that got new slots, in slot order."""
        n = len(tokens)
        holes = self._apply_edits()
        if self._reach < n:
            holes.append((self._reach, n))
        self._edits = []
        self._reach = n
        self.phases.sync(n)
        new = [tokens.slice(start, stop) for start, stop in holes]
        missing = sum(map(len, new))
        if not missing:
            return torch.empty(0, dtype=torch.int32)
        fresh = self.slots.assign(torch.unique(torch.cat(new)))
        if 2 * missing > n:
            self.lists.build(self.slots.of(tokens.slice(0, n)), len(self.slots))
        else:
            for (start, _), ids in zip(holes, new, strict=True):
                self.lists.add(start, self.slots.of(ids), len(self.slots))
        return fresh

    def wasteful(self) -> bool:
        """Whether many slots belong to tokens that are gone."""
        if len(self.slots) <= 512:
            return False
        present = int((self.lists.counts > 0).sum())
        return len(self.slots) > 1.25 * present

    def compact(self) -> Tensor:
        """Keep only slots of tokens that occur; returns the old slots kept (n,) int64."""
        kept = torch.nonzero(self.lists.counts).squeeze(1)
        self.slots.keep(kept)
        self.lists.keep(kept)
        return kept

    def _clear(self) -> None:
        self.lists = PositionLists()
        self._reach, self._edits = 0, []

    def _apply_edits(self) -> list[tuple[int, int]]:
        """Bring the lists up to the edits; returns stretches that they do not hold yet."""
        holes: list[tuple[int, int]] = []
        for at, removed, added in self._edits:
            if removed:
                self.lists.remove(at, at + removed)
                holes = [_without(hole, at, at + removed) for hole in holes]
            if added:
                self.lists.shift(at, added)
                holes = [_moved(hole, at, added) for hole in holes]
                holes.append((at, at + added))
        return _joined(holes)


def _without(hole: tuple[int, int], start: int, stop: int) -> tuple[int, int]:
    """Where a hole lies after positions start..stop-1 are gone."""

    def moved(x: int) -> int:
        return x if x <= start else max(start, x - (stop - start))

    return moved(hole[0]), moved(hole[1])


def _moved(hole: tuple[int, int], at: int, by: int) -> tuple[int, int]:
    """Where a hole lies, grown where it must, after ``by`` positions came in at ``at``."""
    start, stop = hole
    return (start + by if start >= at else start), (stop + by if stop > at else stop)


def _joined(holes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending, without overlaps."""
    out: list[tuple[int, int]] = []
    for start, stop in sorted(hole for hole in holes if hole[0] < hole[1]):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(stop, out[-1][1]))
        else:
            out.append((start, stop))
    return out
