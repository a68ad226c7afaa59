"""Rotating queries and keys by their phases (RoFormer, arXiv 2104.09864; half-split pairing)."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x: Tensor, phases: Tensor) -> Tensor:
    """Rotate the first 2F dimensions of ``x`` (T, heads, D) by ``phases`` (T, 2F).

    The products are float32 whatever x's type; the result has x's type.
    """
    half = phases.shape[-1] // 2
    cos, sin = phases[:, None, :half], phases[:, None, half:]
    a, b = x[..., :half], x[..., half : 2 * half]
    parts = (a * cos - b * sin, b * cos + a * sin)
    if 2 * half == x.shape[-1]:
        return torch.cat(parts, -1).to(x.dtype)
    return torch.cat((*(p.to(x.dtype) for p in parts), x[..., 2 * half :]), -1)
