"""What quantized layers share: products a piece at a time, and the two orders of 4-bit weights.

*Standard* order is bitsandbytes' own: row by row, the first of two weights in the high half of a
byte. *Tiled* order is what its CPU kernel multiplies, used where there is no
code of our own: rows in groups of 32; for each pair of
columns 32 bytes, of which byte 2 r + c holds column c of the group's row r in its low half and of
row 16 + r in its high half. Both take the same bytes, and a group of 32 rows lies in the same
place in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nazx_cli.kernels.native.products import multiplies, product
from nazx_cli.model.layers import QuantizedLinear, multiply
from nazx_cli.quantization.cost import BLOCK, PIECE

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


FEW = 8
"""Rows up to which a CPU kernel beats dequantizing."""


class PiecewiseLinear(QuantizedLinear):
    """What all kinds share: fused where there is a kernel, else a piece at a time."""

    def __init__(
        self, shape: tuple[int, int], bias: nn.Parameter | None, compute_dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = shape
        self.bias = bias
        self.compute_dtype = compute_dtype

    def dense(self, start: int = 0, stop: int | None = None) -> Tensor:
        stop = self.out_features if stop is None else stop
        pieces = list(spans(start, stop, self.in_features))
        if len(pieces) == 1:
            return self._dense(start, stop)
        out = next(self.buffers()).new_empty(
            stop - start, self.in_features, dtype=self.compute_dtype
        )
        for first, last in pieces:
            out[first - start : last - start] = self._dense(first, last)
        return out

    def product(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        stop = self.out_features if stop is None else stop
        whole = self._compiled(x, start, stop)
        if whole is None:
            whole = self._fused(x, start, stop)
        if whole is not None:
            return whole
        parts = [self._product(x, a, b) for a, b in spans(start, stop, self.in_features)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _rows(self, table: Tensor, start: int, stop: int) -> Tensor:
        """Rows start..stop; a slice of all of them would cost a microsecond or two for nothing."""
        return table if stop - start == self.out_features else table[start:stop]

    def _compiled(self, x: Tensor, start: int, stop: int) -> Tensor | None:
        """``product`` of a few rows by code of our own, where it runs."""
        differentiates = torch.is_grad_enabled() and x.requires_grad
        if len(x) > FEW or x.device.type != "cpu" or differentiates or not multiplies():
            return None
        matrix = self.packed(start, stop)
        return None if matrix is None else product(x, matrix)

    def _fused(self, x: Tensor, start: int, stop: int) -> Tensor | None:
        """``product`` by a library without dequantizing, or None where that is slower or cannot
        be."""
        return None

    def _product(self, x: Tensor, start: int, stop: int) -> Tensor:
        return multiply(x, self._dense(start, stop))

    def _dense(self, start: int, stop: int) -> Tensor:
        """``dense`` of one piece."""
        raise NotImplementedError


def spans(start: int, stop: int, columns: int, piece: int = PIECE) -> Iterator[tuple[int, int]]:
    """Rows start..stop in pieces of about ``piece`` weights; each but the last has whole groups
    and blocks, counted from ``start``."""
    unit = math.lcm(GROUP, BLOCK // math.gcd(BLOCK, columns))
    step = max(piece // columns // unit, 1) * unit
    for at in range(start, stop, step):
        yield at, min(at + step, stop)


def probe(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """x (3, columns) bfloat16 and a matrix (rows, columns) float32, always the same."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, columns, generator=generator).to(torch.bfloat16)
    return x, torch.randn(rows, columns, generator=generator)


def distance(got: Tensor, want: Tensor) -> float:
    """Norm of the difference over the norm of what is wanted."""
    return float((got.float() - want.float()).norm() / want.float().norm())
