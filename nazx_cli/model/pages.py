"""Weights in large pages of memory, where Linux has them.

Each token reads all weights. In pages of 4 kB the processor looks up where each of them lies, which
takes a tenth to a quarter of a token's time; pages of 2 MB are few enough to be known. Weights
are read into such pages; where there were none left, the system copies what is there together page
by page, at about 0.4 GB/s, so it is asked to once a longer answer is under way, and beside it.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Thread

import torch
from torch import Tensor

PAGE = 2 << 20
_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_HUGEPAGE, _COLLAPSE = 14, 25  # of <sys/mman.h>; the second since Linux 6.1
_APART = 1 << 16  # bytes between tensors that are seen as one stretch, at most


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor, not filled; on the CPU in large pages from the first where the system has them:
    for 512 small ones it would be interrupted as often, which takes longer than to fill them."""
    tensor = torch.empty(shape, dtype=dtype, device=device)
    if tensor.is_cpu and tensor.nbytes >= 2 * PAGE and _are_wanted():
        _ask([tensor], _HUGEPAGE)
    return tensor


def enlarge(tensors: Iterable[Tensor]) -> Thread | None:
    """Begin to put ``tensors`` into large pages, in a thread that ends with it; their contents and
    addresses stay. None where the system has none, or its owner wants none."""
    if not _are_wanted():
        return None
    held = [tensor for tensor in tensors if tensor.is_cpu]
    thread = Thread(target=_ask, args=(held, _HUGEPAGE, _COLLAPSE), name="large pages", daemon=True)
    thread.start()
    return thread


def stretches(
    places: Iterable[tuple[int, int]], page: int = PAGE, apart: int = _APART
) -> Iterator[tuple[int, int]]:
    """Where whole pages lie within ``places``, pairs of first and last address, and what is between
    two of them if it is at most ``apart``: pairs of addresses that are divisible by ``page``."""
    found: list[list[int]] = []
    for start, stop in sorted(place for place in places if place[0] < place[1]):
        if found and start - found[-1][1] <= apart:
            found[-1][1] = max(found[-1][1], stop)
        else:
            found.append([start, stop])
    for start, stop in found:
        first, last = -(-start // page) * page, stop // page * page
        if first < last:
            yield first, last


def _place(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.data_ptr() + storage.nbytes()


def _ask(tensors: list[Tensor], *advice: int) -> None:
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for first, last in stretches(map(_place, tensors)):
        for what in advice:  # what the system refuses stays as it is: there is nothing to be told
            advise(first, last - first, what)


def _are_wanted() -> bool:
    try:
        return sys.platform == "linux" and "[never]" not in _ENABLED.read_text()
    except OSError:
        return False
