"""Layers in int8: one byte a weight, one scale a row (LLM.int8(), arXiv 2208.07339)."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from nazx_cli.kernels.native.products import Matrix
from nazx_cli.kernels.processor import multiplies_int8
from nazx_cli.model.layers import multiply
from nazx_cli.model.pages import empty
from nazx_cli.quantization.cost import SMALL_PIECE
from nazx_cli.quantization.piecewise import FEW, PiecewiseLinear, distance, probe, spans

MANY = 64
"""Rows from which a CPU multiplies int8 with int8 where it can: prompts, not what follows them."""

_OUTLIER = 6.0  # activations that LLM.int8() keeps in 16 bits; its paper's value
_APART = 5.0
"""Columns of activations that are not rounded: those that reach so many times as far as the median
column. They are about one in a hundred, and rounding moves logits two to four times as far (KL
divergence) without them."""


class Int8Linear(PiecewiseLinear):
    """Rows of int8 with a factor each, their largest magnitude / 127: w = weight * factor."""

    weight: Tensor
    factor: Tensor

    def __init__(
        self,
        weight: Tensor,
        scale: Tensor,
        bias: nn.Parameter | None,
        compute_dtype: torch.dtype,
    ) -> None:
        super().__init__((weight.shape[0], weight.shape[1]), bias, compute_dtype)
        self.register_buffer("weight", weight)
        self.register_buffer("factor", scale / 127)

    def forward(self, x: Tensor) -> Tensor:
        """(T, in) to (T, out); the states of a long prompt are rounded to int8 on a CPU that
        multiplies those. What is derived from initial states goes by ``product`` and is not."""
        if not self._rounds(x):
            return super().forward(x)
        out = self._rounded(x)
        return out if self.bias is None else out.add_(self.bias)

    def packed(self, start: int = 0, stop: int | None = None) -> Matrix:
        stop = self.out_features if stop is None else stop
        shape = (stop - start, self.in_features)
        return Matrix("int8", shape, self.weight[start:stop], self.factor[start:stop])

    def _dense(self, start: int, stop: int) -> Tensor:
        return (self.weight[start:stop] * self.factor[start:stop, None]).to(self.compute_dtype)

    def _product(self, x: Tensor, start: int, stop: int) -> Tensor:
        if self.compute_dtype == torch.float16:  # unscaled sums would overflow
            return super()._product(x, start, stop)
        return self._scaled(multiply(x, self.weight[start:stop].to(x.dtype)), start, stop)

    def _scaled(self, sums: Tensor, start: int, stop: int) -> Tensor:
        return (sums * self._rows(self.factor, start, stop)).to(sums.dtype)

    def _fused(self, x: Tensor, start: int, stop: int) -> Tensor | None:
        weight = self._rows(self.weight, start, stop)
        if x.is_cuda:
            return self._by_library(x, start, stop)
        # The kernel reads whole vectors: other sizes would make it read beyond the matrix.
        even = weight.shape[0] % 32 == 0 and weight.shape[1] % 32 == 0
        if not even or len(x) > FEW or x.dtype != torch.bfloat16 or x.device.type != "cpu":
            return None
        if not _kernel_works():
            return None
        ones = _ones(len(weight))
        return self._scaled(torch._weight_int8pack_mm(x.contiguous(), weight, ones), start, stop)

    def _rounds(self, x: Tensor) -> bool:
        return (
            len(x) >= MANY
            and x.device.type == "cpu"
            and x.dtype in (torch.bfloat16, torch.float32)
            and not (torch.is_grad_enabled() and x.requires_grad)
            and multiplies_integers()
        )

    def _rounded(self, x: Tensor) -> Tensor:
        """The product with x (T, in) in int8 row by row, but for the columns that stand out."""
        reach = torch.maximum(x.amax(0), -x.amin(0)).float()
        apart = (reach > _APART * reach.median()).nonzero()[:, 0]
        codes, scale = _codes(x, apart)
        kept = x[:, apart].float()
        out = x.new_empty(len(x), self.out_features)
        for start, stop in spans(0, self.out_features, self.in_features):
            weight = self.weight[start:stop]
            sums = torch._int_mm(codes, weight.t()) * scale
            sums.addmm_(kept, weight[:, apart].float().t()).mul_(self.factor[start:stop])
            out[:, start:stop] = sums
        return out

    def _by_library(self, x: Tensor, start: int, stop: int) -> Tensor:
        """LLM.int8(): activations are quantized too, row by row, outliers apart."""
        import bitsandbytes as bnb

        state = bnb.MatmulLtState()
        state.CB, state.SCB = self.weight[start:stop], self.factor[start:stop] * 127
        state.has_fp16_weights = state.is_training = False
        out: Tensor = bnb.matmul(x, state.CB, state=state, threshold=_OUTLIER)
        return out


def quantize_int8(weight: Tensor, device: torch.device) -> dict[str, Tensor]:
    """``weight`` (out, in) int8 and ``SCB`` (out,) float32 of a matrix of any float type."""
    from bitsandbytes.functional import int8_vectorwise_quant

    rows, columns = weight.shape
    data = empty((rows, columns), torch.int8, device)
    scale = torch.empty(rows, dtype=torch.float32, device=device)
    for start, stop in spans(0, rows, columns, SMALL_PIECE):
        # float16 is what bitsandbytes quantizes from.
        piece = weight[start:stop].to(device, torch.float16)
        data[start:stop], scale[start:stop], _ = int8_vectorwise_quant(piece)
    return {"weight": data, "SCB": scale}


def _codes(x: Tensor, apart: Tensor) -> tuple[Tensor, Tensor]:
    """int8 (T, in) of x and the scales (T, 1) float32 that they stand with; 0 in columns
    ``apart``. A piece at a time, which the caches hold."""
    codes = torch.empty(x.shape, dtype=torch.int8)
    scale = torch.empty(len(x), 1)
    step = max(1, SMALL_PIECE // x.shape[1])
    for rows in (slice(at, at + step) for at in range(0, len(x), step)):
        rest = x[rows].index_fill(1, apart, 0).float()
        scale[rows] = rest.abs().amax(1, keepdim=True).clamp_(min=1e-30).div_(127)
        codes[rows] = rest.div_(scale[rows]).round_()
    return codes, scale


@cache
def multiplies_integers() -> bool:
    """Whether torch's product of int8 with int8 is there, fast and exact."""
    if not multiplies_int8() or not hasattr(torch, "_int_mm"):
        return False
    codes = torch.arange(-127, 128, dtype=torch.int8)
    # All products at their largest, and of either sign: instructions that add up in 16 bits fail.
    x, weight = codes.repeat(40, 1)[:, :192], codes.flip(0).repeat(96, 1)[:, :192]
    x[1], weight[1] = 127, -127
    x[2], weight[2] = -127, -127
    want = x.double() @ weight.double().t()
    return bool((torch._int_mm(x, weight.t()).double() == want).all())


@cache
def _ones(count: int) -> Tensor:
    """Scales for the kernel: its own have too few bits, so that ours are applied to the sums."""
    return torch.ones(count, dtype=torch.bfloat16)


@cache
def _kernel_works() -> bool:
    """Whether torch's product of bfloat16 with int8 is there and right."""
    if not hasattr(torch, "_weight_int8pack_mm"):
        return False
    x, weight = probe(64, 96)
    codes = (weight * 40).round().clamp(-127, 127).to(torch.int8)
    got = torch._weight_int8pack_mm(x, codes, x.new_ones(len(codes)))
    return distance(got, x.float() @ codes.float().t()) < 0.01
