"""Weights as they lie in memory, and products of a few rows with them: ``products.c``."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from nazx_cli.kernels.native.compiler import compile_library, target

_SOURCE = Path(__file__).with_name("products.c")
_KINDS = {"float32": 0, "bfloat16": 1, "int8": 2, "nf4": 3}
_SMALL = 2 << 20
"""Bytes of a matrix below which one thread is as quick as several."""


@dataclass(frozen=True)
class Matrix:
    """A matrix (out, in) as it lies in memory, and the bias (out,) in the compute type.

    kind is the compute type's name; ``int8``: bytes, and a float32 factor for each row; or
    ``nf4``: two codes to a byte in bitsandbytes' order, and a float32 factor for each 64 of them.
    """

    kind: str
    shape: tuple[int, int]
    data: Tensor
    scale: Tensor | None = None
    bias: Tensor | None = None


class CMatrix(ctypes.Structure):
    """``struct matrix``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("data", "scale", "bias")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "kind")),
    )

    @classmethod
    def of(cls, matrix: Matrix) -> CMatrix:
        """Pointers to the tensors of ``matrix``, which must be kept."""
        tensors = map(address, (matrix.data, matrix.scale, matrix.bias))
        return cls(*tensors, *matrix.shape, _KINDS[matrix.kind])


class _Job(ctypes.Structure):
    _fields_ = (
        ("matrix", CMatrix),
        *((name, ctypes.c_void_p) for name in ("x", "ready", "y")),
        *((name, ctypes.c_int64) for name in ("count", "threads")),
    )


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor's numbers begin; None for none."""
    return None if tensor is None else tensor.data_ptr()


def multiplies() -> bool:
    """Whether ``product`` can be had here: it wants a compiler and a CPU with AVX-512,
    AVX2 or NEON, and ``NAZX_NATIVE=0`` turns it off."""
    return os.environ.get("NAZX_NATIVE") != "0" and _compiled(target()) is not None


def product(x: Tensor, matrix: Matrix) -> Tensor:
    """(T, out) in x's type: x (T, in) times the transpose of a quantized matrix on the CPU, without
    the bias. The weights are read for every four rows of x."""
    library = _compiled(target())
    assert library is not None, "whoever asks knows that it can be had"
    count, rows = len(x), matrix.shape[0]
    wide = x.float().contiguous()
    held = CMatrix.of(matrix)
    ready = torch.empty(count, library.ready_size(ctypes.byref(held)))
    out = torch.empty(count, rows)
    threads = torch.get_num_threads() if matrix.data.nbytes > _SMALL else 1
    job = _Job(held, *map(address, (wide, ready, out)), count, threads)
    library.multiply(ctypes.byref(job))
    return out.to(x.dtype)


@lru_cache(maxsize=4)
def _compiled(march: str) -> ctypes.CDLL | None:
    library = compile_library(_SOURCE, {}, ("has_vectors", "ready_size", "multiply"), march)
    if library is None or not library.has_vectors():
        return None
    library.ready_size.restype = ctypes.c_int64
    return library
