"""Posting lists: for each distinct token of a sequence, where it stands.

``PostingLists`` never change: a document is searched in them (recall). ``PositionLists`` follow
edits and hold slots instead of ids; ``ListIndex`` keeps them in step with a context, for the
kernels that read them (design section 2: equal tokens have equal keys and values). An edit costs
one pass over the positions (some milliseconds for 1,000,000), and only when the next token is
asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.kernels import SPARE_POSITIONS
from nazx_cli.kernels.base import InvertedIndex, Tokens
from nazx_cli.kernels.rotary import PhaseTables

_SORTED = 1 << 20  # tokens
_MOST_EDITS = 8  # more than this before the next token: building anew is as quick


@dataclass(frozen=True)
class PostingLists:
    """Posting lists of N tokens with U distinct ids, on the CPU.

    distinct   (U,)   int32, ascending token ids
    offsets    (U+1,) int64, list u is positions[offsets[u]:offsets[u + 1]]
    positions  (N,)   int32, ascending within a list
    """

    distinct: Tensor
    offsets: Tensor
    positions: Tensor

    @classmethod
    def build(cls, ids: Tensor) -> PostingLists:
        """Index ``ids``, a 1-D integer tensor of ids from 0 on; about 0.1 s for 1,000,000 tokens.

        Some tokens at a time: to sort them takes several times the memory of the result.
        """
        size = int(ids.max()) + 1 if len(ids) else 0
        counts = torch.zeros(size, dtype=torch.int64)
        for at in range(0, len(ids), _SORTED):
            counts += torch.bincount(ids[at : at + _SORTED], minlength=size)
        behind = torch.cumsum(counts, 0)
        filled = behind - counts  # where the next position of each id goes
        positions = torch.empty(len(ids), dtype=torch.int32)
        for at in range(0, len(ids), _SORTED):
            ordered, order = torch.sort(ids[at : at + _SORTED].to(torch.int32), stable=True)
            found, many = torch.unique_consecutive(ordered, return_counts=True)
            shift = filled[found] - (torch.cumsum(many, 0) - many)
            places = torch.arange(len(order)) + torch.repeat_interleave(shift, many)
            positions[places] = (order + at).to(torch.int32)
            filled[found] += many
        distinct = torch.nonzero(counts).flatten()
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), behind[distinct]])
        return cls(distinct.to(torch.int32), offsets, positions)

    @property
    def counts(self) -> Tensor:
        """(U,) int64: length of each list."""
        return self.offsets[1:] - self.offsets[:-1]

    def __len__(self) -> int:
        return len(self.positions)


class PositionLists:
    """Lists of N positions for U slots: list u is positions[offsets[u]:offsets[u + 1]].

    offsets (U + 1,) int64; positions (>= N,) int32 with spare room at its end. After an edit those
    of a list come in no particular order, which attention does not ask for.
    """

    def __init__(self) -> None:
        self.offsets = torch.zeros(1, dtype=torch.int64)
        self.positions = torch.empty(0, dtype=torch.int32)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_positions(self) -> int:
        """N: positions in all lists together."""
        return int(self.offsets[-1])

    @property
    def counts(self) -> Tensor:
        """(U,) int64: length of each list."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""
        return self.offsets.numel() * 8 + self.positions.numel() * 4

    def build(self, slots: Tensor, count: int) -> None:
        """Lists of positions 0..N-1 from their slots (N,), for ``count`` slots."""
        self._set(torch.sort(slots, stable=True).indices.to(torch.int32), _counts(slots, count))

    def add(self, start: int, slots: Tensor, count: int) -> None:
        """Take in positions start..start+n-1 with slots (n,); there are ``count`` slots now."""
        new = len(slots)
        if not new:
            return
        total = self.num_positions
        if count > len(self):
            self.offsets = torch.cat((self.offsets, self.offsets[-1:].expand(count - len(self))))
        if new == 1:
            self._add_one(start, int(slots[0]), total)
            return
        order = torch.sort(slots, stable=True).indices
        ordered = slots[order].long()
        # Each goes to the end of its list; those before it in the array have moved on.
        at = self.offsets[1:][ordered] + torch.arange(new)
        grown = torch.empty(total + new + SPARE_POSITIONS, dtype=torch.int32)
        is_old = torch.ones(total + new, dtype=torch.bool)
        is_old[at] = False
        grown[: total + new][is_old] = self.positions[:total]
        grown[at] = (order + start).to(torch.int32)
        self.positions = grown
        self.offsets[1:] += _counts(slots, len(self)).cumsum(0)

    def shift(self, at: int, by: int) -> None:
        """Make room for ``by`` positions before position ``at``."""
        held = self.positions[: self.num_positions]
        held += (held >= at).to(torch.int32) * by

    def remove(self, start: int, stop: int) -> None:
        """Drop positions start..stop-1; later ones move down."""
        held = self.positions[: self.num_positions]
        kept = (held < start) | (held >= stop)
        before = torch.zeros(len(held) + 1, dtype=torch.int64)
        torch.cumsum(kept, 0, out=before[1:])
        self.offsets = before[self.offsets]
        left = held[kept]
        left -= (left >= stop).to(torch.int32) * (stop - start)
        self.positions = left

    def keep(self, which: Tensor) -> None:
        """Keep the lists ``which`` (n,), in that order; all others must be empty."""
        counts = self.counts[which]
        begins = self.offsets[:-1][which]
        inside = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(
            counts
        )
        self._set(self.positions[begins.repeat_interleave(counts) + inside], counts)

    def _add_one(self, position: int, slot: int, total: int) -> None:
        if total == len(self.positions):
            self.positions = torch.cat((self.positions, self.positions.new_empty(SPARE_POSITIONS)))
        at = int(self.offsets[slot + 1])
        held = self.positions.numpy()
        held[at + 1 : total + 1] = held[at:total]  # numpy moves overlapping memory rightly
        held[at] = position
        self.offsets[slot + 1 :] += 1

    def _set(self, positions: Tensor, counts: Tensor) -> None:
        self.positions = positions
        self.offsets = torch.zeros(len(counts) + 1, dtype=torch.int64)
        torch.cumsum(counts, 0, out=self.offsets[1:])


class ListIndex(InvertedIndex):
    """Posting lists that edits are applied to, and the phases of all positions; how they attend
    is the kernel's."""

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(config, device, dtype)
        self.lists = PositionLists()
        self.phases = PhaseTables.empty(self.rotary, device)
        self._reach = 0  # positions that they will hold or miss once the edits are applied
        self._edits: list[tuple[int, int, int]] = []  # (at, removed, added), waiting

    @property
    def nbytes(self) -> int:
        """Bytes of positions, offsets, phases and slots."""
        return self.lists.nbytes + self.phases.nbytes + self.slots.nbytes

    def edited(self, at: int, removed: int, added: int) -> None:
        """Note the edit; ``sync`` applies it."""
        if at >= self._reach:
            return
        removed = min(removed, self._reach - at)
        self._edits.append((at, removed, added))
        self._reach += added - removed
        if len(self._edits) > _MOST_EDITS:
            self._clear()

    def _take_in(self, tokens: Tokens) -> Tensor:
        n = len(tokens)
        holes = self._apply_edits()
        if self._reach < n:
            holes.append((self._reach, n))
        self._edits = []
        self._reach = n
        self.phases.sync(self.rotary, n, tokens.total)
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

    def _occupied(self) -> Tensor:
        return torch.nonzero(self.lists.counts).squeeze(1)

    def _renumber(self, kept: Tensor) -> None:
        self.lists.keep(kept)

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


def _counts(slots: Tensor, count: int) -> Tensor:
    return torch.bincount(slots.long(), minlength=count)


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
