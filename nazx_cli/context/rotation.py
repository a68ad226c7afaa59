"""Rotating queries and keys by their phases (RoFormer, arXiv 2104.09864; half-split pairing)."""

from __future__ import annotations

import torch
from torch import Tensor


class Turn:
    """The rotation of T positions, made once and used by every layer.

    Phases (T, 2F) float32 hold cosines, then sines. Products are in ``dtype``.
    """

    def __init__(self, phases: Tensor, dtype: torch.dtype) -> None:
        self._half = phases.shape[-1] // 2
        table = phases[:, None].to(dtype)
        cos, sin = table[..., : self._half], table[..., self._half :]
        self._cos = torch.cat((cos, cos), -1)  # (T, 1, 2F)
        self._sin = torch.cat((-sin, sin), -1)

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate the first 2F dimensions of x (T, heads, D); the result has x's type.

        For each pair (a, b) of dimensions f and f + F: (a cos - b sin, b cos + a sin).
        """
        width = 2 * self._half
        if not width:
            return x
        part = x[..., :width]
        swapped = part.roll(self._half, -1)
        turned = torch.addcmul(part * self._cos, swapped, self._sin)
        return turned if width == x.shape[-1] else torch.cat((turned, x[..., width:]), -1)
