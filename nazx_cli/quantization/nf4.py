"""Layers in nf4: four bits a weight, one scale for 64 of them (QLoRA, arXiv 2305.14314; its
second quantization, of the scales, is left out)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nazx_cli.kernels.native.products import Matrix
from nazx_cli.model.pages import empty
from nazx_cli.quantization.cost import BLOCK, SMALL_PIECE
from nazx_cli.quantization.piecewise import (
    FEW,
    GROUP,
    PiecewiseLinear,
    distance,
    probe,
    spans,
    tile,
    untile,
)

if TYPE_CHECKING:
    from bitsandbytes.functional import QuantState


class Nf4Linear(PiecewiseLinear):
    """4-bit codes in standard order (see ``piecewise``), two to a byte, and for every 64 of them,
    row-major, the largest magnitude."""

    weight: Tensor
    absmax: Tensor

    def __init__(
        self,
        data: Tensor,
        absmax: Tensor,
        shape: tuple[int, int],
        bias: nn.Parameter | None,
        compute_dtype: torch.dtype,
    ) -> None:
        super().__init__(shape, bias, compute_dtype)
        self.register_buffer("weight", data)
        self.register_buffer("absmax", absmax)

    def packed(self, start: int = 0, stop: int | None = None) -> Matrix | None:
        if self.in_features % BLOCK:  # rows do not begin with a block
            return None
        stop = self.out_features if stop is None else stop
        data, absmax, _ = self._blocks(start, stop)
        return Matrix("nf4", (stop - start, self.in_features), data, absmax)

    def _dense(self, start: int, stop: int) -> Tensor:
        from bitsandbytes.functional import dequantize_4bit

        data, absmax, before = self._blocks(start, stop)
        columns = self.in_features
        # Rows that are whole blocks let bitsandbytes' threads share the work.
        rows = 2 * len(data) // columns if columns % BLOCK == 0 else 1
        state = _state(absmax, torch.Size((rows, 2 * len(data) // rows)), self.compute_dtype)
        flat: Tensor = dequantize_4bit(data.view(-1, 1), state).reshape(-1)
        return flat[before : before + (stop - start) * columns].view(stop - start, columns)

    def _blocks(self, start: int, stop: int) -> tuple[Tensor, Tensor, int]:
        """Whole blocks that hold rows start..stop: bytes, scales, and how many weights come
        before the first row."""
        first = start * self.in_features // BLOCK
        last = -(-stop * self.in_features // BLOCK)
        data = self.weight[first * BLOCK // 2 : last * BLOCK // 2]
        return data, self.absmax[first:last], start * self.in_features - first * BLOCK

    def _fused(self, x: Tensor, start: int, stop: int) -> Tensor | None:
        return self._by_library(x, start, stop) if x.is_cuda else None

    def _by_library(self, x: Tensor, start: int, stop: int) -> Tensor | None:
        """bitsandbytes' own product; None for rows that do not start with a block."""
        from bitsandbytes import matmul_4bit

        data, absmax, before = self._blocks(start, stop)
        if before or (stop * self.in_features % BLOCK and stop != self.out_features):
            return None
        shape = torch.Size((stop - start, self.in_features))
        state = _state(absmax, shape, x.dtype)
        out: Tensor = matmul_4bit(x, data.view(-1, 1).t(), quant_state=state)
        return out


class TiledNf4Linear(Nf4Linear):
    """The same codes in tiled order, for bitsandbytes' fused kernel, without code of our own;
    rows are a multiple of 32 and columns of 64. ``weight`` is (rows, columns / 2) and ``absmax``
    (columns / 64, rows) bfloat16, which is what the kernel computes with."""

    def __init__(
        self,
        data: Tensor,
        absmax: Tensor,
        shape: tuple[int, int],
        bias: nn.Parameter | None,
        compute_dtype: torch.dtype,
    ) -> None:
        rows, columns = shape
        tiled = torch.empty_like(data.view(rows, -1))
        standard = data.view(rows, -1)
        for start, stop in spans(0, rows, columns):
            tiled[start:stop] = tile(standard[start:stop])
        by_column = absmax.view(rows, -1).t().to(torch.bfloat16).contiguous()
        super().__init__(tiled, by_column, shape, bias, compute_dtype)

    def packed(self, start: int = 0, stop: int | None = None) -> None:
        return None  # compiled code reads the other order

    def _blocks(self, start: int, stop: int) -> tuple[Tensor, Tensor, int]:
        first, last = start // GROUP * GROUP, -(-stop // GROUP) * GROUP
        data = untile(self.weight[first:last]).view(-1)
        absmax = self.absmax[:, first:last].t().float().reshape(-1)
        return data, absmax, (start - first) * self.in_features

    def _fused(self, x: Tensor, start: int, stop: int) -> Tensor | None:
        if len(x) > FEW or start % GROUP or stop % GROUP:
            return None
        is_part = stop - start < self.out_features
        # Positional, by the operator's schema.
        out: Tensor = torch.ops.bitsandbytes.gemv_4bit.default(
            x.contiguous(),
            self._rows(self.weight, start, stop),
            (stop - start, self.in_features),
            self.absmax[:, start:stop].contiguous() if is_part else self.absmax,
            _code(x.device),
            BLOCK,
        )
        return out


def quantize_nf4(weight: Tensor, device: torch.device) -> dict[str, Tensor]:
    """``weight`` (bytes, 1) uint8 and ``absmax`` (blocks,) float32 of a matrix (out, in) of any
    float type, in standard order."""
    from bitsandbytes.functional import quantize_4bit

    rows, columns = weight.shape
    count = rows * columns
    data = empty((-(-count // 2), 1), torch.uint8, device)
    absmax = torch.empty(-(-count // BLOCK), dtype=torch.float32, device=device)
    for start, stop in spans(0, rows, columns, SMALL_PIECE):
        piece = weight[start:stop].to(device, torch.float32)
        codes, state = quantize_4bit(piece, blocksize=BLOCK, quant_type="nf4")
        at = start * columns
        data[at // 2 : at // 2 + len(codes)] = codes
        absmax[at // BLOCK : at // BLOCK + len(state.absmax)] = state.absmax
    return {"weight": data, "absmax": absmax}


def _state(absmax: Tensor, shape: torch.Size, dtype: torch.dtype) -> QuantState:
    from bitsandbytes.functional import QuantState

    return QuantState(
        absmax=absmax,
        shape=shape,
        code=_code(absmax.device),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=dtype,
    )


@cache
def _code(device: torch.device) -> Tensor:
    """(16,) float32: the values of nf4 between -1 and 1."""
    from bitsandbytes.functional import get_4bit_type

    code: Tensor = get_4bit_type("nf4", device=device)
    return code


@cache
def kernel_works() -> bool:
    """Whether bitsandbytes' product of bfloat16 with tiled nf4 is there and right: its order of
    weights is no promise of the library's."""
    from bitsandbytes import functional

    if not getattr(functional, "has_avx512bf16", bool)():
        return False
    x, weight = probe(64, 128)
    tensors = quantize_nf4(weight, torch.device("cpu"))
    data, absmax = tensors["weight"].view(-1), tensors["absmax"]
    layer = TiledNf4Linear(data, absmax, (64, 128), None, torch.bfloat16)
    got = layer._fused(x, 32, 64)
    return got is not None and distance(got, x.float() @ layer.dense(32, 64).float().t()) < 0.02
