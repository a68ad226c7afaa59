"""Slots: a row number for each distinct token of a context."""

from __future__ import annotations

import torch
from torch import Tensor


class SlotTable:
    """``known`` (U,) int32 are the ids by slot; slots stay the same until ``keep``."""

    def __init__(self, vocab_size: int) -> None:
        self._slot_of = torch.full((vocab_size,), -1, dtype=torch.int32)
        self.known = torch.empty(0, dtype=torch.int32)

    def __len__(self) -> int:
        return len(self.known)

    @property
    def nbytes(self) -> int:
        """Bytes of both tables."""
        return (self._slot_of.numel() + self.known.numel()) * 4

    def of(self, ids: Tensor) -> Tensor:
        """(n,) int32 slots of ids (n,); -1 where a token has none."""
        return self._slot_of[ids.long()]

    def assign(self, ids: Tensor) -> Tensor:
        """Give slots to those of the distinct ``ids`` that have none; returns those."""
        fresh = ids[self.of(ids) < 0]
        first = len(self.known)
        numbers = torch.arange(first, first + len(fresh), dtype=torch.int32)
        self._slot_of[fresh.long()] = numbers
        self.known = torch.cat((self.known, fresh.to(torch.int32)))
        return fresh

    def keep(self, which: Tensor) -> None:
        """Keep the slots ``which`` (n,), numbered anew in that order."""
        self.known = self.known[which.long()]
        self._slot_of.fill_(-1)
        self._slot_of[self.known.long()] = torch.arange(len(self.known), dtype=torch.int32)
