"""Rows that grow: a tensor with spare room, so that one more row does not copy all others."""

from __future__ import annotations

import torch
from torch import Tensor

STEP = 256
"""Rows by which capacity is rounded up; ``context.cost`` rounds the same way."""


class GrowingRows:
    """(*lead, count, *shape) on one device; capacity is the next multiple of ``STEP``.

    Rows never written are zero.
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
        return -(-count // STEP) * STEP

    def _allocate(self, need: int) -> None:
        shape = list(self._store.shape)
        shape[self._axis] = self._capacity(need)
        old, self._store = self.rows, self._store.new_zeros(shape)
        self._part(0, self.count).copy_(old)
