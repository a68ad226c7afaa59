"""Slots, a row number for each distinct token of a context, and rows that grow with them."""

from __future__ import annotations

import torch
from torch import Tensor

from nazx_cli.kernels import ROW_STEP


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


class GrowingRows:
    """(*lead, count, *shape) on one device; capacity is the next multiple of ``ROW_STEP``.

    Spare rows that were never in use are zero.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        lead: tuple[int, ...] = (),
    ) -> None:
        self._store = torch.empty((*lead, 0, *shape), dtype=dtype, device=device)
        self._axis = len(lead)
        self.count = 0

    @property
    def rows(self) -> Tensor:
        """A view of the rows in use."""
        return self._part(0, self.count)

    @property
    def padded(self) -> Tensor:
        """All rows, spare ones included: contiguous, which batched products need."""
        return self._store

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""
        return self._store.numel() * self._store.element_size()

    def extend(self, count: int) -> Tensor:
        """Make room for ``count`` more rows and return the view to be filled."""
        need = self.count + count
        if need > self._store.shape[self._axis]:
            self._allocate(need)
        self.count = need
        return self._part(need - count, need)

    def truncate(self, count: int) -> None:
        """Keep the first ``count`` rows and give back what they do not need."""
        self.count = min(count, self.count)
        if self._store.shape[self._axis] > self._capacity(self.count):
            self._allocate(self.count)

    def keep(self, which: Tensor) -> None:
        """Keep the rows ``which`` (n,), in that order."""
        kept = self.rows.index_select(self._axis, which.to(self._store.device))
        self.truncate(0)
        self.extend(len(which)).copy_(kept)

    def _part(self, start: int, stop: int) -> Tensor:
        return self._store.narrow(self._axis, start, stop - start)

    def _capacity(self, count: int) -> int:
        return -(-count // ROW_STEP) * ROW_STEP

    def _allocate(self, need: int) -> None:
        shape = list(self._store.shape)
        shape[self._axis] = self._capacity(need)
        old, self._store = self.rows, self._store.new_empty(shape)
        self._part(0, self.count).copy_(old)
        self._part(need, shape[self._axis]).zero_()
