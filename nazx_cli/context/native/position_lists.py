"""Posting lists that follow edits: where each slot's token stands, end to end in one array.

Unlike ``posting_lists.PostingLists``, which recall reads, positions within a list come in no
particular order after an edit; attention does not ask for one.
"""

from __future__ import annotations

import torch
from torch import Tensor


class PositionLists:
    """Lists of N positions for U slots: list u is positions[offsets[u]:offsets[u + 1]].

    offsets (U + 1,) int64; positions (>= N,) int32 with spare room at its end.
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
        grown = torch.empty(_room(total + new), dtype=torch.int32)
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
            self.positions = torch.cat((self.positions, self.positions.new_empty(_room(total + 1))))
        at = int(self.offsets[slot + 1])
        held = self.positions.numpy()
        held[at + 1 : total + 1] = held[at:total]  # numpy moves overlapping memory rightly
        held[at] = position
        self.offsets[slot + 1 :] += 1

    def _set(self, positions: Tensor, counts: Tensor) -> None:
        self.positions = positions
        self.offsets = torch.zeros(len(counts) + 1, dtype=torch.int64)
        torch.cumsum(counts, 0, out=self.offsets[1:])


def _counts(slots: Tensor, count: int) -> Tensor:
    return torch.bincount(slots.long(), minlength=count)


def _room(count: int) -> int:
    return count + 512
