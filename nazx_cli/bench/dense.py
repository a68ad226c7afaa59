"""Attention of one query over a dense cache of keys and values, in every way worth measuring."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nazx_cli.context.projections import Projections
from nazx_cli.context.rotation import Turn

_BLOCK = 65_536  # positions rotated at a time


class DenseCache:
    """Rotated keys and values of every position of ids (N,), as a model without posting lists
    keeps them: contiguous, in the model's type, each form of attention with its best layout.

    keys, values: (H, N, D); turned_keys: (H, D, N).
    """

    def __init__(self, projections: Projections, ids: Tensor) -> None:
        p, c, n = projections, projections.config, len(ids)
        distinct, at = torch.unique(ids, return_inverse=True)
        k, v = p.keys_values(0, p.states(distinct))  # (U, H, D) each
        self.keys = torch.empty(c.num_kv_heads, n, c.head_dim, dtype=p.dtype)
        self.values = torch.empty_like(self.keys)
        for start in range(0, n, _BLOCK):
            span = slice(start, min(start + _BLOCK, n))
            turn = Turn(p.rotary.phases(span.start, span.stop, n, p.device), p.dtype)
            self.keys[:, span] = turn(k[at[span]]).transpose(0, 1)
            self.values[:, span] = v[at[span]].transpose(0, 1)
        self.turned_keys = self.keys.transpose(1, 2).contiguous()

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, without the second copy of the keys."""
        return self.keys.nbytes + self.values.nbytes

    def forms(self, query: Tensor) -> dict[str, Callable[[], Tensor]]:
        """The ways to attend with a rotated query (H, D) of the cache's type, by name; each
        gives (H, D)."""
        row = query[:, None]  # (H, 1, D)
        scaled = row * query.shape[-1] ** -0.5
        keys, turned, values = self.keys, self.turned_keys, self.values
        return {
            "sdpa": lambda: F.scaled_dot_product_attention(row[None], keys[None], values[None])[
                0, :, 0
            ],
            "matmul": lambda: torch.bmm(
                torch.bmm(scaled, keys.transpose(1, 2)).softmax(-1), values
            )[:, 0],
            "matmul over turned keys": lambda: torch.bmm(
                torch.bmm(scaled, turned).softmax(-1), values
            )[:, 0],
            "head by head": lambda: torch.stack(
                [
                    torch.mv(v.t(), torch.mv(k, q).softmax(0))
                    for q, k, v in zip(scaled[:, 0], keys, values, strict=True)
                ]
            ),
        }


def exact(projections: Projections, ids: Tensor, query: Tensor) -> Tensor:
    """(H, D) float64: the same attention of an un-rotated query (H, D) at the last position,
    all arithmetic after the projections in float32 and sums in float64."""
    p, n = projections, len(ids)
    distinct, at = torch.unique(ids, return_inverse=True)
    k, v = (rows.float() for rows in p.keys_values(0, p.states(distinct)))
    last = Turn(p.rotary.phases(n - 1, n, n, p.device), torch.float32)
    q = last(query.float()[None])[0] * query.shape[-1] ** -0.5
    parts = []
    for start in range(0, n, _BLOCK):
        span = slice(start, min(start + _BLOCK, n))
        turn = Turn(p.rotary.phases(span.start, span.stop, n, p.device), torch.float32)
        scores = torch.einsum("nhd,hd->hn", turn(k[at[span]]), q).double()
        weights = torch.zeros(len(q), len(distinct), dtype=torch.float64)
        top = scores.amax(1, keepdim=True)
        weights.index_add_(1, at[span], (scores - top).exp())
        parts.append((top, weights))
    highest = torch.stack([top for top, _ in parts]).amax(0)
    total = torch.stack([weights * (top - highest).exp() for top, weights in parts]).sum(0)
    return torch.einsum("hu,uhd->hd", total / total.sum(1, keepdim=True), v.double())
