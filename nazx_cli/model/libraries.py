"""What the C libraries under a model keep to themselves, held to little.

They keep far more than they need, of which nothing ever comes back: compiled code for every shape
of a product in 16 bits (half a megabyte each), and freed memory between what is still in use.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

_SHAPES = 32  # whose code is kept; a pass through the layers meets about six
_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")  # oneDNN's, and PyTorch's of it
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of <malloc.h>
_LARGE = 1 << 20


@cache
def keep_little() -> None:
    """Call before the first product: the caches look at their capacity only once.

    Blocks of a megabyte or more are from then on given back to the system as soon as they are
    freed. Left alone, glibc begins to keep them after the first one of many megabytes: with a
    tensor for each weight as it is read that comes to half of the model.
    """
    for name in _CACHES:
        os.environ.setdefault(name, str(_SHAPES))
    if (c := _glibc()) is not None:
        c.mallopt(_MMAP_THRESHOLD, _LARGE)


def give_back() -> None:
    """Give freed memory back to the system, where it is glibc that keeps it."""
    if (c := _glibc()) is not None:
        c.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        c = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no library of its own name
        return None
    return c if hasattr(c, "malloc_trim") and hasattr(c, "mallopt") else None
