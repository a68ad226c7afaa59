"""The compiled loop over positions whose initial states see several tokens (``grams.c``)."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.kernels import LANES, heads_of_block
from nazx_cli.kernels.base import Attended
from nazx_cli.kernels.native.compiler import compile_library, target
from nazx_cli.kernels.rotary import PhaseTables
from nazx_cli.kernels.rows import GrowingRows

_SOURCE = Path(__file__).with_name("grams.c")
_LOG2_E = 1 / math.log(2)
_POINTERS = (
    *("rows", "s", "slots", "scales", "outer", "inner", "turned", "fixed"),
    *("scores", "sums"),
)


class _Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in ("first", "last")),
        *((name, ctypes.c_float * LANES) for name in ("top", "mass")),
    )


@dataclass(frozen=True)
class Positions:
    """Of each position the slot of its token, int32, after those of the w - 1 tokens before the
    first (-1: there is none), (w - 1 + N,); its scale (N,) float32; its phases."""

    slots: Tensor
    scales: Tensor
    phases: PhaseTables


class GramKernel:
    """``grams.c`` for H heads (a block of the model's), F rotary pairs, states that see w tokens,
    and pairs in one of two types."""

    def __init__(
        self, library: ctypes.CDLL, heads: int, half: int, window: int, dtype: torch.dtype
    ) -> None:
        self.heads, self.half, self.window, self.dtype = heads, half, window, dtype
        self._library = library

    def pair_rows(self, rows: Tensor) -> Tensor:
        """Rows (H, 2F, ...) of a head's first 2F components in the order in which the kernel reads
        them: (2F * H, ...)."""
        a, b = rows[:, : self.half].transpose(0, 1), rows[:, self.half :].transpose(0, 1)
        axis = 1 if self.dtype is torch.float32 else 2  # see attention.c
        return torch.stack((a, b), axis).flatten(0, 2)

    def attend(
        self,
        query: Tensor,
        phases: Tensor,
        where: Positions,
        pairs: Tensor,
        s: Tensor,
        constants: Tensor,
        fixed: Tensor,
    ) -> Attended:
        """(U * w, H) float32: softmax weights times scales, summed for each token and distance.

        query (H, D) un-rotated, phases (2F,) of its position; pairs (U * w, 2F * H) and s
        (U * w, H), each token's and distance's part of a key and of a score, constants (H,) and
        fixed (H, 2F) what is added to them.
        """
        q = query.float() * (query.shape[1] ** -0.5 * _LOG2_E)
        cos, sin = phases[: self.half], phases[self.half :]
        a, b = q[:, : self.half], q[:, self.half : 2 * self.half]
        turned = _lanes(torch.cat((a * cos - b * sin, b * cos + a * sin), 1).t())
        added = _lanes(torch.cat((fixed, constants[:, None] * _LOG2_E), 1).t())
        s = (s * _LOG2_E).contiguous()
        count = len(where.scales)
        scores = torch.empty(count, self.heads)
        sums = torch.zeros(len(s), LANES)
        slots = where.slots[self.window - 1 :]
        held = (pairs, s, slots, where.scales, where.phases.outer, where.phases.inner)
        job = _Job(first=0, last=count)
        for name, tensor in zip(_POINTERS, (*held, turned, added, scores, sums), strict=True):
            setattr(job, name, tensor.data_ptr())
        self._library.score(ctypes.byref(job))
        self._library.sum(ctypes.byref(job))
        top, mass = (torch.tensor(list(each)[: self.heads]) for each in (job.top, job.mass))
        return Attended(sums[:, : self.heads] / mass, (top + mass.log2()) / _LOG2_E)


class GramPairs:
    """Of one layer: what each token's rows give to a key's components that RoPE turns, a table
    (U * w, 2F * H) for each block of H heads; none without a kernel."""

    def __init__(self, kernel: GramKernel | None, config: ModelConfig) -> None:
        self._kernel = kernel
        self.tables: list[GrowingRows] = []
        if kernel is not None:
            width, cpu = 2 * kernel.half * kernel.heads, torch.device("cpu")
            blocks = config.num_heads // kernel.heads
            self.tables = [GrowingRows((width,), kernel.dtype, cpu) for _ in range(blocks)]

    def blocks(self) -> Iterator[tuple[slice, GrowingRows]]:
        """Each block's heads and table."""
        assert self._kernel is not None
        heads = self._kernel.heads
        for number, table in enumerate(self.tables):
            yield slice(number * heads, (number + 1) * heads), table

    def derive(self, rows: Tensor, vectors: Tensor) -> None:
        """Add what is missing for rows (U * w, C): products with ``vectors`` (H, 2F, C)."""
        assert self._kernel is not None
        for heads, table in self.blocks():
            new = rows[table.count :]
            if len(new):
                matrix = self._kernel.pair_rows(vectors[heads]).to(rows.dtype)
                torch.mm(new, matrix.t(), out=table.extend(len(new)))

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""
        return sum(table.nbytes for table in self.tables)


def gram_kernel_for(config: ModelConfig, dtype: torch.dtype) -> GramKernel | None:
    """The kernel where ``kernel_for`` has one for the same shapes; None where it cannot be
    compiled."""
    heads, half = heads_of_block(config.num_heads), config.rope.dim // 2
    return _compiled(heads, half, config.attention.initial_window, dtype, target())


@lru_cache(maxsize=8)
def _compiled(
    heads: int, half: int, window: int, dtype: torch.dtype, march: str
) -> GramKernel | None:
    shape = {"HEADS": heads, "HALF": half, "WINDOW": window, "BF16": int(dtype is torch.bfloat16)}
    library = compile_library(_SOURCE, shape, ("score", "sum"), march)
    return None if library is None else GramKernel(library, heads, half, window, dtype)


def _lanes(rows: Tensor) -> Tensor:
    """(n, H) with lanes that are not used: (n, 16) float32."""
    return torch.nn.functional.pad(rows.float(), (0, LANES - rows.shape[1])).contiguous()
