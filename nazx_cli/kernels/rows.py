"""Slots, a row number for each distinct token or cell of a context; and rows that grow."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.kernels import RECENT_CELLS, ROW_STEP


class Slots(Protocol):
    """Slots by token, or by cell; they stay the same until ``keep``."""

    def __len__(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""

    def of(self, ids: Tensor) -> Tensor:
        """(n,) int32 slots of ids (n,); -1 where there is none."""

    def assign(self, ids: Tensor) -> Tensor:
        """Give slots to those of the distinct, ascending ``ids`` that have none; returns those."""

    def keep(self, which: Tensor) -> None:
        """Keep the slots ``which`` (n,), numbered anew in that order."""


def new_slots(config: ModelConfig) -> Slots:
    """A table for the tokens of a model, or for its cells: see ``context.cells``."""
    return CellSlots() if config.attention.initial_window > 1 else SlotTable(config.vocab_size)


class SlotTable:
    """Slots of tokens. ``known`` (U,) int32 are the ids by slot."""

    def __init__(self, vocab_size: int) -> None:
        self._slot_of = torch.full((vocab_size,), -1, dtype=torch.int32)
        self.known = torch.empty(0, dtype=torch.int32)

    def __len__(self) -> int:
        return len(self.known)

    @property
    def nbytes(self) -> int:
        return (self._slot_of.numel() + self.known.numel()) * 4

    def of(self, ids: Tensor) -> Tensor:
        return self._slot_of[ids.long()]

    def assign(self, ids: Tensor) -> Tensor:
        fresh = ids[self.of(ids) < 0]
        first = len(self.known)
        numbers = torch.arange(first, first + len(fresh), dtype=torch.int32)
        self._slot_of[fresh.long()] = numbers
        self.known = torch.cat((self.known, fresh.to(torch.int32)))
        return fresh

    def keep(self, which: Tensor) -> None:
        self.known = self.known[which.long()]
        self._slot_of.fill_(-1)
        self._slot_of[self.known.long()] = torch.arange(len(self.known), dtype=torch.int32)


class CellSlots:
    """Slots of cells, of which there can be far more than a table has room for: two sorted lists,
    so that a single cell is put into the short one."""

    def __init__(self) -> None:
        self._most = _SortedSlots()
        self._recent = _SortedSlots()

    def __len__(self) -> int:
        return len(self._most.cells) + len(self._recent.cells)

    @property
    def nbytes(self) -> int:
        return self._most.nbytes + self._recent.nbytes

    def of(self, ids: Tensor) -> Tensor:
        slots = self._most.of(ids)
        return torch.maximum(slots, self._recent.of(ids)) if len(self._recent.cells) else slots

    def assign(self, ids: Tensor) -> Tensor:
        fresh = ids[self.of(ids) < 0]
        first = len(self)
        self._recent.add(fresh, torch.arange(first, first + len(fresh), dtype=torch.int32))
        if len(self._recent.cells) > RECENT_CELLS:
            self._most.add(self._recent.cells, self._recent.slots)
            self._recent = _SortedSlots()
        return fresh

    def keep(self, which: Tensor) -> None:
        number_of = torch.full((len(self),), -1, dtype=torch.int32)
        number_of[which.long()] = torch.arange(len(which), dtype=torch.int32)
        for part in (self._most, self._recent):
            part.renumber(number_of)


class _SortedSlots:
    """``cells`` (n,) int64, ascending, and their ``slots`` (n,) int32."""

    def __init__(self) -> None:
        self.cells = torch.empty(0, dtype=torch.int64)
        self.slots = torch.empty(0, dtype=torch.int32)

    @property
    def nbytes(self) -> int:
        return self.cells.numel() * 8 + self.slots.numel() * 4

    def of(self, cells: Tensor) -> Tensor:
        """(n,) slots of cells (n,) in any order; -1 where there is none."""
        if not len(self.cells):
            return torch.full((len(cells),), -1, dtype=torch.int32)
        at = torch.searchsorted(self.cells, cells).clamp_(max=len(self.cells) - 1)
        return torch.where(self.cells[at] == cells, self.slots[at], -1)

    def add(self, cells: Tensor, slots: Tensor) -> None:
        """Merge in ascending ``cells`` (n,) that are not there yet."""
        at = torch.searchsorted(self.cells, cells) + torch.arange(len(cells))
        is_old = torch.ones(len(self.cells) + len(cells), dtype=torch.bool)
        is_old[at] = False
        self.cells = _merged(self.cells, cells, at, is_old)
        self.slots = _merged(self.slots, slots, at, is_old)

    def renumber(self, number_of: Tensor) -> None:
        """Give slot s the number ``number_of[s]``; those of number -1 go."""
        slots = number_of[self.slots.long()]
        self.cells, self.slots = self.cells[slots >= 0], slots[slots >= 0]


def _merged(old: Tensor, new: Tensor, at: Tensor, is_old: Tensor) -> Tensor:
    out = old.new_empty(len(is_old))
    out[is_old] = old
    out[at] = new
    return out


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
