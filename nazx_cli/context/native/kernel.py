"""The compiled inner loop: weights of posting lists for one query (``weigh.c``).

Heads are vector lanes there, at most 16 at a time; more heads are taken in equal blocks.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.context.native.compiler import compile_library
from nazx_cli.context.native.phases import PhaseTables
from nazx_cli.context.native.position_lists import PositionLists

SPARE = 32
"""Numbers after the end of a table that the kernel may read."""

_SOURCE = Path(__file__).with_name("weigh.c")
_LANES = 16
_BLOCK, _CHUNK = 4, 64  # weigh.c knows them too
_BOUND_TOP, _FIND_TOP, _KEEP_TOP = 0, 1, 2
_LOWEST = -1e30
_LEAST_MASS = 1e-30  # below: the bound was so far off that weights begin to vanish
_LEAST_WORK = 50_000  # positions for each thread, below which one more does not pay

_POINTERS = (
    *("pairs", "s", "w", "ra", "rb", "offsets", "positions", "outer", "inner", "top", "mass"),
    *("states", "v", "constants", "mixed"),
)


class _Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in ("first", "last", "mode", "width")),
    )


@dataclass(frozen=True)
class Lists:
    """Posting lists, the phases of their positions, and of each list's token the un-rotated key
    components that RoPE turns: pairs (U, 2F, H), ``SPARE`` numbers longer."""

    lists: PositionLists
    phases: PhaseTables
    pairs: Tensor


class Kernel:
    """``weigh.c`` for H heads (a block of the model's), F rotary pairs, D dimensions of a head."""

    def __init__(self, library: ctypes.CDLL, heads: int, half: int, dim: int) -> None:
        self.heads, self.half, self.dim = heads, half, dim
        self.lanes = _lanes(heads)
        self._library = library

    def weights(self, query: Tensor, phases: Tensor, at: Lists, s: Tensor) -> Tensor:
        """(U, H) float32 softmax weights of each list; columns add up to 1.

        query (H, D) un-rotated, phases (2F,) of its position, s (U, H) scores of the dimensions
        that are not rotated, scale 1/sqrt(D) included.
        """
        count = len(at.lists)
        out = torch.empty(count * self.heads + SPARE)
        own = torch.nn.functional.pad(s.flatten(), (0, SPARE))

        def fill(job: _Job, part: _Part) -> None:
            job.s, job.w = own.data_ptr(), out.data_ptr()
            part.call = self._library.weigh

        parts = self._run(query, phases, at, fill)
        table = out[: count * self.heads].view(-1, self.heads)
        for part, factor in zip(parts, _factors(parts), strict=True):
            table[part.first : part.last] *= factor[: self.heads]
        return table

    def attend(
        self,
        query: Tensor,
        phases: Tensor,
        at: Lists,
        states: Tensor,
        key: Tensor,
        constants: Tensor,
    ) -> Tensor:
        """(H, C) float32: weighted means of float32 ``states`` (U, C), C a multiple of 16.

        Scores of the dimensions that are not rotated are states @ key.T + constants, with key
        (H, C) and constants (H,) float32; query and phases as for ``weights``.
        """
        width = states.shape[1]
        rows = -(-self.heads // _BLOCK) * _BLOCK
        key = torch.nn.functional.pad(key, (0, 0, 0, rows - self.heads)).contiguous()

        def fill(job: _Job, part: _Part) -> None:
            part.scratch = torch.zeros(2, _CHUNK * self.heads + SPARE)
            part.mixed = torch.zeros(rows, width)
            job.s, job.w = part.scratch[0].data_ptr(), part.scratch[1].data_ptr()
            job.states, job.v, job.constants = (t.data_ptr() for t in (states, key, constants))
            job.mixed, job.width = part.mixed.data_ptr(), width
            part.call = self._library.attend

        parts = self._run(query, phases, at, fill)
        mixed = [
            part.mixed[: self.heads] * factor[: self.heads, None]
            for part, factor in zip(parts, _factors(parts), strict=True)
        ]
        return torch.stack(mixed).sum(0)

    def _run(
        self, query: Tensor, phases: Tensor, at: Lists, fill: Callable[[_Job, _Part], None]
    ) -> list[_Part]:
        """Take in all lists, on as many threads as pay; by exact maxima where the bound is too
        far from the scores."""
        turned = self._rotated(query, phases)
        parts = [_Part(first, last, self.lanes) for first, last in _shares(at.lists)]

        def run(part: _Part, mode: int) -> None:
            job = _Job(first=part.first, last=part.last, mode=mode)
            fill(job, part)
            job.ra, job.rb = (t.data_ptr() for t in turned)
            job.top, job.mass = part.top.data_ptr(), part.mass.data_ptr()
            job.pairs = at.pairs.data_ptr()
            job.offsets, job.positions = at.lists.offsets.data_ptr(), at.lists.positions.data_ptr()
            job.outer, job.inner = at.phases.outer.data_ptr(), at.phases.inner.data_ptr()
            part.call(ctypes.byref(job))

        _on_threads(lambda part: run(part, _BOUND_TOP), parts)
        for part in parts:
            if bool((part.mass[: self.heads] < _LEAST_MASS).any()):
                part.reset()
                run(part, _FIND_TOP)
                run(part, _KEEP_TOP)
        return parts

    def _rotated(self, query: Tensor, phases: Tensor) -> tuple[Tensor, Tensor]:
        """The query's pairs (F, lanes) turned to its own position, scale included."""
        q = query.float() * self.dim**-0.5
        cos, sin = phases[: self.half], phases[self.half :]
        a, b = q[:, : self.half], q[:, self.half : 2 * self.half]
        pad = (0, self.lanes - self.heads)
        ra, rb = (a * cos - b * sin).t(), (b * cos + a * sin).t()
        return (
            torch.nn.functional.pad(ra, pad).contiguous(),
            torch.nn.functional.pad(rb, pad).contiguous(),
        )


class _Part:
    """A stretch of lists for one thread, and what came of it."""

    call: Callable[[object], None]
    mixed: Tensor
    scratch: Tensor

    def __init__(self, first: int, last: int, lanes: int) -> None:
        self.first, self.last = first, last
        self.top = torch.full((lanes,), _LOWEST)
        self.mass = torch.zeros(lanes)

    def reset(self) -> None:
        self.top.fill_(_LOWEST)
        self.mass.zero_()


def _factors(parts: list[_Part]) -> list[Tensor]:
    """What to multiply each part's sums with, so that all weights add up to 1."""
    top = torch.stack([part.top for part in parts]).amax(0)
    scales = [torch.exp(part.top - top) for part in parts]
    mass = torch.stack([p.mass * scale for p, scale in zip(parts, scales, strict=True)]).sum(0)
    return [scale / mass for scale in scales]


def kernel_for(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """The kernel for a model's shapes; None where it cannot be used or compiled.

    It wants InAttention, a CPU, float32 or bfloat16, rotary dimensions, and a key head for each
    query head. ``NAZX_NATIVE=0`` turns it off.
    """
    half = config.rope.dim // 2
    if (
        os.environ.get("NAZX_NATIVE") == "0"
        or config.attention.kind != "inattention"
        or device.type != "cpu"
        or dtype not in (torch.float32, torch.bfloat16)
        or not half
        or config.num_kv_heads != config.num_heads
    ):
        return None
    heads = heads_of_block(config.num_heads)
    return _compiled(heads, half, config.head_dim, dtype is torch.bfloat16)


def heads_of_block(heads: int) -> int:
    """How many of ``heads`` the kernel takes at a time: the most that divide them, up to 16."""
    return next(n for n in range(min(heads, _LANES), 0, -1) if heads % n == 0)


@lru_cache(maxsize=8)
def _compiled(heads: int, half: int, dim: int, is_bf16: bool) -> Kernel | None:
    shape = {"HEADS": heads, "HALF": half, "BF16": int(is_bf16)}
    library = compile_library(_SOURCE, shape)
    return None if library is None else Kernel(library, heads, half, dim)


def _lanes(heads: int) -> int:
    return 4 if heads <= 4 else 8 if heads <= 8 else _LANES


def _shares(lists: PositionLists) -> list[tuple[int, int]]:
    """Stretches of lists with about the same work, one for each thread."""
    count, total = len(lists), lists.num_positions
    threads = max(1, min(torch.get_num_threads(), (total + count) // _LEAST_WORK, count))
    if threads == 1:
        return [(0, count)]
    # A list costs about what eight positions do.
    work = lists.offsets + 8 * torch.arange(count + 1)
    marks = torch.arange(1, threads) * (int(work[-1]) / threads)
    cuts = [0, *torch.searchsorted(work, marks.long()).tolist(), count]
    return [(a, b) for a, b in pairwise(cuts) if a < b]


def _on_threads(work: Callable[[_Part], None], parts: list[_Part]) -> None:
    """ctypes lets go of the interpreter during a call, so threads do run at once."""
    if len(parts) == 1:
        work(parts[0])
    else:
        list(_pool(len(parts)).map(work, parts))


@lru_cache(maxsize=2)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="nazx-kernel")
