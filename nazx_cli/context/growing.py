"""Rows that grow: a tensor with spare room, so that one more row does not copy all others."""

from __future__ import annotations

import torch
from torch import Tensor

STEP = 256
"""Rows by which capacity is rounded up; ``context.cost`` rounds the same way."""


class GrowingRows:
    """(count, *shape) rows on one device; capacity is the next multiple of ``STEP``."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self._store = torch.empty((0, *shape), dtype=dtype, device=device)
        self.count = 0

    @property
    def rows(self) -> Tensor:
        """A view of the rows in use."""
        return self._store[: self.count]

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""
        return self._store.numel() * self._store.element_size()

    def extend(self, count: int) -> Tensor:
        """Make room for ``count`` more rows and return the view to be filled."""
        need = self.count + count
        if need > len(self._store):
            capacity = -(-need // STEP) * STEP
            shape = (capacity, *self._store.shape[1:])
            store = self._store.new_empty(shape)
            store[: self.count] = self.rows
            self._store = store
        new = self._store[self.count : need]
        self.count = need
        return new

    def truncate(self, count: int) -> None:
        """Keep the first ``count`` rows and give back what they do not need."""
        self.count = min(count, self.count)
        capacity = -(-self.count // STEP) * STEP
        if capacity < len(self._store):
            self._store = self._store[:capacity].clone()

    def keep(self, which: Tensor) -> None:
        """Keep the rows ``which`` (n,), in that order."""
        kept = self.rows[which]
        self.count = 0
        self._store = self._store[:0].clone()
        self.extend(len(kept)).copy_(kept)
