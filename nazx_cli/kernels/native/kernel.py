"""The compiled inner loop: attention of one query over posting lists (``attention.c``).

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
from nazx_cli.kernels import LANES, heads_of_block
from nazx_cli.kernels.base import Attended
from nazx_cli.kernels.lists import PositionLists
from nazx_cli.kernels.native.compiler import compile_library, target
from nazx_cli.kernels.rotary import PhaseTables

_SOURCE = Path(__file__).with_name("attention.c")
_SYMBOLS = ("prepare", "measure", "weigh", "attend", "combine")
_LEAST_WORK = 50_000  # positions for each thread, below which one more does not pay

_POINTERS = (
    *("pairs", "longest", "offsets", "positions", "outer", "inner", "query", "phases"),
    *("s", "w", "states", "v", "constants", "mixed", "scratch"),
)


class _Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in ("first", "last", "width", "dim")),
        *((name, ctypes.c_float * LANES) for name in ("top", "mass")),
        ("mode", ctypes.c_int64),
        ("turned", ctypes.c_void_p),
        ("ahead", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Lists:
    """Posting lists, the phases of their positions, and of each list's token the un-rotated key
    components that RoPE turns: pairs (U, 2F * H) in the order of ``Kernel.pair_rows``, and
    ``longest`` (F, 16), which ``Kernel.measure`` makes of them."""

    lists: PositionLists
    phases: PhaseTables
    pairs: Tensor
    longest: Tensor


class Kernel:
    """``attention.c`` for H heads (a block of the model's), F rotary pairs, D dimensions of a
    head, and states and pairs in one of two types."""

    def __init__(
        self, library: ctypes.CDLL, heads: int, half: int, dim: int, dtype: torch.dtype
    ) -> None:
        self.heads, self.half, self.dim, self.dtype = heads, half, dim, dtype
        self._library = library
        self._step = (LANES if dtype is torch.float32 else 2 * LANES) if library.prepare() else 0

    def multiplies(self, width: int) -> bool:
        """Whether ``attend`` takes states of ``width`` features: it may have no products for
        this machine and type."""
        return bool(self._step) and width % self._step == 0

    def pair_rows(self, rows: Tensor) -> Tensor:
        """Rows (H, 2F, ...) of a head's first 2F components, a and then b of each pair, in the
        order in which the kernel reads them: (2F * H, ...)."""
        a, b = rows[:, : self.half].transpose(0, 1), rows[:, self.half :].transpose(0, 1)
        # (F, H, 2) fills a 32-bit lane with both of bfloat16; (F, 2, H) a lane with one of float32.
        axis = 1 if self.dtype is torch.float32 else 2
        return torch.stack((a, b), axis).flatten(0, 2)

    def no_lengths(self) -> Tensor:
        """``longest`` of no pairs."""
        return torch.zeros(self.half, LANES)

    def measure(self, pairs: Tensor, first: int, last: int, longest: Tensor) -> None:
        """Raise ``longest`` (F, 16) float32 to the squared lengths of pairs first..last-1."""
        job = _Job(first=first, last=last)
        job.pairs, job.scratch = pairs.data_ptr(), longest.data_ptr()
        self._library.measure(ctypes.byref(job))

    def weights(self, query: Tensor, phases: Tensor, at: Lists, s: Tensor) -> Attended:
        """(U, H) float32 softmax weights of each list; columns add up to 1.

        query (H, D) un-rotated, phases (2F,) of its position, s (U, H) float32 scores of the
        dimensions that are not rotated, scale 1/sqrt(D) included.
        """
        s = s.contiguous()
        out = torch.empty(len(at.lists), self.heads)
        common = {"s": s.data_ptr(), "w": out.data_ptr()}
        return Attended(out, self._run(self._library.weigh, query, phases, at, common, None))

    def attend(
        self,
        query: Tensor,
        phases: Tensor,
        at: Lists,
        states: Tensor,
        key: Tensor,
        constants: Tensor,
    ) -> Attended:
        """(H, C) float32: weighted means of ``states`` (U, C), where it ``multiplies`` C.

        Scores of the dimensions that are not rotated are states @ key.T + constants, with key
        (H, C) and constants (H,) float32; query and phases as for ``weights``.
        """
        key, constants = key.contiguous(), constants.contiguous()
        out = torch.empty(self.heads, states.shape[1])
        common = {"states": states.data_ptr(), "width": states.shape[1]}
        common |= {"v": key.data_ptr(), "constants": constants.data_ptr()}
        return Attended(out, self._run(self._library.attend, query, phases, at, common, out))

    def _run(
        self,
        entry: Callable[[object], None],
        query: Tensor,
        phases: Tensor,
        at: Lists,
        common: dict[str, int],
        out: Tensor | None,
    ) -> Tensor:
        """Take in all lists, on as many threads as pay, and combine what they give; ``lse``."""
        query, phases = query.float().contiguous(), phases.contiguous()
        common |= {"query": query.data_ptr(), "phases": phases.data_ptr(), "dim": self.dim}
        common |= {"pairs": at.pairs.data_ptr(), "longest": at.longest.data_ptr()}
        common |= {
            "offsets": at.lists.offsets.data_ptr(),
            "positions": at.lists.positions.data_ptr(),
            "outer": at.phases.outer.data_ptr(),
            "inner": at.phases.inner.data_ptr(),
        }
        shares = _shares(at.lists)
        jobs = (_Job * len(shares))()
        # For each thread what it gathers, (16, C) at most, and for bfloat16 96 rows of states.
        room = torch.empty(len(shares), (LANES + 48) * common.get("width", 0))
        for job, (first, last), own in zip(jobs, shares, room, strict=True):
            for name, value in common.items():
                setattr(job, name, value)
            job.first, job.last = first, last
            if out is not None:
                job.mixed = own.data_ptr()
                job.scratch = job.mixed + 4 * LANES * common["width"]
        _on_threads(entry, [ctypes.byref(job) for job in jobs])
        lse = torch.empty(self.heads)
        self._library.combine(
            jobs,
            ctypes.c_int64(len(jobs)),
            ctypes.c_void_p(None if out is None else out.data_ptr()),
            ctypes.c_void_p(lse.data_ptr()),
        )
        return lse


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
    return _compiled(heads, half, config.head_dim, dtype, target())


@lru_cache(maxsize=8)
def _compiled(heads: int, half: int, dim: int, dtype: torch.dtype, march: str) -> Kernel | None:
    shape = {"HEADS": heads, "HALF": half, "BF16": int(dtype is torch.bfloat16)}
    library = compile_library(_SOURCE, shape, _SYMBOLS, march)
    return None if library is None else Kernel(library, heads, half, dim, dtype)


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


def _on_threads(entry: Callable[[object], None], jobs: list[object]) -> None:
    """ctypes lets go of the interpreter during a call, so threads do run at once."""
    if len(jobs) == 1:
        entry(jobs[0])
    else:
        list(_pool(len(jobs)).map(entry, jobs))


@lru_cache(maxsize=2)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="nazx-kernel")
