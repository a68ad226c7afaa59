"""Two orders of 4-bit weights: bitsandbytes' own, and the one that its CPU kernel multiplies.

*Standard*: row by row, the first of two weights in the high half of a byte. *Tiled*: rows in
groups of 32; for each pair of columns 32 bytes, of which byte 2 r + c holds column c of the
group's row r in its low half and of row 16 + r in its high half. Both take the same bytes, and
a group of 32 rows lies in the same place in both.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 32
"""Rows that are interleaved; the rows of a tiled matrix are a multiple of it."""


def tile(standard: Tensor) -> Tensor:
    """(rows, columns / 2) uint8 from standard to tiled order."""
    groups = standard.view(len(standard) // GROUP, 2, GROUP // 2, -1)
    upper, lower = groups[:, 0], groups[:, 1]  # rows 0-15 and 16-31 of each group
    first = (upper >> 4) | (lower & 0xF0)
    second = (upper & 0x0F) | (lower << 4)
    return torch.stack((first, second), -1).transpose(1, 2).reshape(standard.shape)


def untile(tiled: Tensor) -> Tensor:
    """The inverse of ``tile``."""
    # Two bytes at a time: half as many elements for the transposition, which costs the most.
    pairs = tiled.view(torch.int16).view(len(tiled) // GROUP, -1, GROUP // 2)
    pairs = pairs.transpose(1, 2).contiguous()
    upper = ((pairs & 0x0F) << 4) | ((pairs >> 8) & 0x0F)
    lower = (pairs & 0xF0) | ((pairs >> 12) & 0x0F)
    return torch.stack((upper, lower), 1).to(torch.uint8).view(tiled.shape)
