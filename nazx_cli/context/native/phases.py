"""Phases of all positions as two small tables: cos and sin of a sum from those of its parts."""

from __future__ import annotations

import torch

from nazx_cli.context.cost import PHASE_BLOCK, PHASE_SPARE, PHASE_STEP
from nazx_cli.context.projections import Projections


class PhaseTables:
    """outer (B, 2F) of positions 0, 1024, 2048, ...; inner (1024, 2F) of 0..1023, times the
    attention scaling of the RoPE type. Float32, made in float64."""

    def __init__(self, projections: Projections) -> None:
        self._p = projections
        self.outer = self.inner = torch.empty(0, 2 * projections.rotary.half)
        self._length = 0

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(table.untyped_storage().nbytes() for table in (self.outer, self.inner))

    def sync(self, length: int) -> None:
        """Cover positions 0..length-1 of a sequence of ``length``."""
        rotary = self._p.rotary
        covered = len(self.outer) * PHASE_BLOCK
        if length <= covered and rotary.same_frequencies(self._length, length):
            return
        top = -(-length // PHASE_STEP) * PHASE_STEP
        places = torch.arange(0, top, PHASE_BLOCK)
        self.inner = _with_spare(rotary.at(torch.arange(PHASE_BLOCK), length))
        self.outer = _with_spare(rotary.at(places, length) / rotary.scaling)
        self._length = length


def _with_spare(table: torch.Tensor) -> torch.Tensor:
    """The table with room behind it that may be read."""
    room = torch.nn.functional.pad(table.flatten(), (0, PHASE_SPARE))
    return room[: table.numel()].view(table.shape)
