"""The index on the Triton kernel: posting lists on the CPU, where edits are applied, and cut into
segments on the device.

A program takes ``ROWS`` positions: one segment of the first width, or several of a smaller one, so
that lists of one position, which half of all are, do not cost a program each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.kernels import SEGMENT_ROWS as ROWS
from nazx_cli.kernels import SEGMENT_TAIL as TAIL
from nazx_cli.kernels.base import Attended, PairTable, Tokens
from nazx_cli.kernels.lists import ListIndex, PositionLists
from nazx_cli.kernels.rows import GrowingRows

WIDTHS = (ROWS, ROWS >> 3, ROWS >> 6)
"""The most positions that a segment of each kind holds; the kernel knows them too."""
_WASTE = 4  # the rest of a list takes a whole segment if it fills more than a fourth of it


class Segments:
    """G segments of the lists of N positions: segment g belongs to list table[0, g] and is
    positions[table[1, g]:table[1, g] + table[2, g]].

    table (3, >= G) and positions (>= N,) are int32. Segments stand in order of their widths, of
    which ``ends`` gives the last one of each but the smallest. What is appended joins the end as
    segments of one position, until the tail of ``TAIL`` is full.
    """

    def __init__(self, device: torch.device) -> None:
        self.table = torch.empty(3, 0, dtype=torch.int32, device=device)
        self.positions = torch.empty(0, dtype=torch.int32, device=device)
        self.ends = (0, 0)
        self.count = 0

    @property
    def room(self) -> int:
        """How many positions can be appended."""
        return self.table.shape[1] - self.count

    @property
    def nbytes(self) -> int:
        """Bytes held on the device."""
        return (self.table.numel() + self.positions.numel()) * 4

    def programs(self) -> int:
        """How many programs the segments take."""
        begins, ends = (0, *self.ends), (*self.ends, self.count)
        return sum(
            -(-(end - begin) // (ROWS // width))
            for begin, end, width in zip(begins, ends, WIDTHS, strict=True)
        )

    def build(self, lists: PositionLists) -> None:
        """Cut ``lists``, which hold positions 0..N-1, and copy them to the device."""
        device, total = self.table.device, lists.num_positions
        parts = _cut(lists.counts, lists.offsets[:-1])
        # Of what is appended all but the list is known already.
        places = torch.arange(total, total + TAIL, dtype=torch.int32)
        tail = torch.stack((torch.zeros_like(places), places, torch.ones_like(places)))
        self.table = torch.cat((*parts, tail), 1).to(device)
        self.positions = torch.empty(total + TAIL, dtype=torch.int32, device=device)
        self.positions[:total] = lists.positions[:total].to(device)
        self.positions[total:] = places.to(device)
        wide, middle, short = (part.shape[1] for part in parts)
        self.ends = (wide, wide + middle)
        self.count = wide + middle + short

    def append(self, slots: Tensor) -> None:
        """Take in the next positions, from their lists ``slots`` (n,); n is at most ``room``."""
        self.table[0, self.count : self.count + len(slots)] = slots.to(self.table.device)
        self.count += len(slots)


class TritonPairs(PairTable):
    """Pairs (U, 2F * kv_heads), head by head within a component."""

    def derive(self, states: Tensor, vectors: Tensor, constants: Tensor) -> None:
        matrix = vectors.transpose(0, 1).flatten(0, 1).to(states.dtype)
        offset = constants.t().flatten().to(states.dtype)
        self.tables[0].extend(len(states)).copy_(torch.addmm(offset, states, matrix.t()))

    def put(self, keys: Tensor) -> None:
        self.tables[0].extend(len(keys)).copy_(keys.transpose(1, 2).flatten(1))


class TritonIndex(ListIndex):
    """Posting lists in both forms; states, pairs and products are on the device."""

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        from nazx_cli.kernels.triton.weigh import weights  # imports Triton

        super().__init__(config, device, dtype)
        self._weights = weights
        self._segments = Segments(device)
        self._held = 0  # positions that the segments hold, all of them where they stand now

    def edited(self, at: int, removed: int, added: int) -> None:
        """Note the edit; ``sync`` applies it."""
        super().edited(at, removed, added)
        if at < self._held:
            self._held = 0

    def sync(self, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        """As any index; after appending only the new positions go to the device."""
        changes = super().sync(tokens)
        length = len(tokens)
        new = length - self._held
        if not self._held or new > self._segments.room:
            self._segments.build(self.lists)
        elif new:
            self._segments.append(self.slots.of(tokens.slice(self._held, length)))
        self._held = length
        return changes

    def new_pairs(self) -> TritonPairs:
        width = 2 * self.rotary.half * self.config.num_kv_heads
        return TritonPairs([GrowingRows((width,), self.dtype, self.device)])

    def weights(self, query: Tensor, phases: Tensor, s: Tensor, pairs: PairTable) -> Attended:
        rows = pairs.tables[0].padded
        return self._weights(query, phases, s, rows, self._segments, self.phases)

    def _renumber(self, kept: Tensor) -> None:
        super()._renumber(kept)
        self._held = 0

    @property
    def nbytes(self) -> int:
        return super().nbytes + self._segments.nbytes


def _cut(left: Tensor, begins: Tensor) -> list[Tensor]:
    """Segments (3, g) of each width, for lists of ``left`` (U,) positions at ``begins`` (U,)."""
    every = torch.arange(len(left))
    parts = []
    for width in WIDTHS:
        least = 0 if width == WIDTHS[-1] else width // _WASTE
        pieces = left // width + (left % width > least).long()
        which = every.repeat_interleave(pieces)
        done = (torch.arange(len(which)) - (pieces.cumsum(0) - pieces)[which]) * width
        held = (left[which] - done).clamp(max=width)
        parts.append(torch.stack((which, begins[which] + done, held)).to(torch.int32))
        taken = torch.minimum(pieces * width, left)
        left, begins = left - taken, begins + taken
    return parts
