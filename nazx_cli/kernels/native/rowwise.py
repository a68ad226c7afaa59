"""One vector for each head times that head's matrix: bfloat16 on a CPU by ``rowwise.c``.

PyTorch's batched product of one bfloat16 row takes about twice as long as reading the matrices
does, and its result is rounded.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from nazx_cli.kernels.native.compiler import compile_library, target

_SOURCE = Path(__file__).with_name("rowwise.c")
_SMALL = 4 << 20
"""Bytes of matrices below which one thread is as quick as several."""


def from_left(vectors: Tensor, matrices: Tensor) -> Tensor:
    """(H, M, C) float32: vectors (H, M, D) @ matrices (H, D, C)."""
    if vectors.shape[1] != 1 or (library := _library_for(matrices)) is None:
        return torch.bmm(vectors.to(matrices.dtype), matrices).float()
    return _call(library.from_left, vectors, matrices, matrices.shape[2])


def from_right(vectors: Tensor, matrices: Tensor) -> Tensor:
    """(H, M, D) float32: vectors (H, M, C) @ matrices (H, D, C), the latter transposed."""
    if vectors.shape[1] != 1 or (library := _library_for(matrices)) is None:
        return torch.bmm(vectors.to(matrices.dtype), matrices.transpose(1, 2)).float()
    return _call(library.from_right, vectors, matrices, matrices.shape[1])


def _call(entry: Callable[..., None], vectors: Tensor, matrices: Tensor, width: int) -> Tensor:
    out = torch.empty(len(matrices), 1, width)
    vectors = vectors.float().contiguous()
    entry(
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (vectors, matrices, out)),
        *(ctypes.c_int64(size) for size in matrices.shape),
    )
    return out


def _library_for(matrices: Tensor) -> ctypes.CDLL | None:
    """The compiled products; None where PyTorch's are as quick, or are needed for gradients."""
    if (
        os.environ.get("NAZX_NATIVE") == "0"
        or matrices.device.type != "cpu"
        or matrices.dtype != torch.bfloat16
        or not matrices.is_contiguous()
        or (torch.is_grad_enabled() and matrices.requires_grad)
        or (matrices.nbytes > _SMALL and torch.get_num_threads() > 1)
    ):
        return None
    return _compiled(target())


@lru_cache(maxsize=4)
def _compiled(march: str) -> ctypes.CDLL | None:
    return compile_library(_SOURCE, {}, ("from_left", "from_right"), march)
