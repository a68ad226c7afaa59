"""What the C libraries under a model keep to themselves: little beside it, enough to compute with.

They keep far more than a chat needs, of which nothing ever comes back: compiled code for every
shape of a product in 16 bits (half a megabyte each), and freed memory between what is still in
use. Training meets the same hundred shapes in every layer. And what is given back to the system is
dear to have again: each page of 4 kB is cleared first, which took up to two fifths of the time in
which a prompt was read.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_SHAPES = 32  # whose code is kept; a pass through the layers meets about six
_TRAINING_SHAPES = 512  # forward and backward, by blocks of queries, meet about a hundred
_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")  # oneDNN's, and PyTorch's of it
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of <malloc.h>
_LARGE = 1 << 20
_LARGEST = 1 << 25  # what glibc takes at most as a threshold of mmap
_LOADING, _READING = 1 << 24, 1 << 28  # bytes that are kept at the end of the heap
_NEVER = (1 << 31) - 1


@contextmanager
def loading() -> Iterator[None]:
    """While weights are loaded; begin before the first product, since the caches look at their
    capacity only once.

    Meanwhile blocks of a megabyte or more are given back to the system as soon as they are freed:
    left alone, glibc begins to keep them after the first one of many megabytes, and with a tensor
    for each weight as it is read that comes to half of the model. From then on freed memory stays,
    a quarter of a gigabyte at the end of the heap, until ``give_back``: every layer that reads a
    prompt asks for as much again.
    """
    _keep_code(_SHAPES)
    _set((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LOADING))
    try:
        yield
    finally:
        give_back()
        _set((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _READING))


def keep_for_training() -> None:
    """Call before the first product, and after ``loading`` where both are called.

    Freed memory stays with the process: a layer's tensors are asked for anew all the time, and
    each page that comes from the system is cleared first.
    """
    _keep_code(_TRAINING_SHAPES)
    _set((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, 64 * _LARGE))


def give_back() -> None:
    """Give freed memory back to the system, where it is glibc that keeps it."""
    if (c := _glibc()) is not None:
        c.malloc_trim(0)


def _set(*options: tuple[int, int]) -> None:
    if (c := _glibc()) is not None:
        for option, value in options:
            c.mallopt(option, value)


def _keep_code(shapes: int) -> None:
    for name in _CACHES:
        if os.environ.get(name) in (None, str(_SHAPES)):  # else it is what the user wants
            os.environ[name] = str(shapes)


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        c = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no library of its own name
        return None
    return c if hasattr(c, "malloc_trim") and hasattr(c, "mallopt") else None
