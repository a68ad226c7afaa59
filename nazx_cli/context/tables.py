"""Layout ``tables``: posting lists and per-layer key and value rows per distinct token.

More memory than ``postings``, bounded by the vocabulary, and less arithmetic per token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nazx_cli.context.growing import GrowingRows
from nazx_cli.context.inverted_index import InvertedIndex
from nazx_cli.context.layout import Layout
from nazx_cli.context.projections import Projections
from nazx_cli.context.scoring import probes
from nazx_cli.context.tokens import TokenSequence

_BLOCK = 4_096  # distinct tokens projected at a time


class TablesLayout(Layout):
    """For each layer rows (U, 2, kv_heads, D), un-rotated keys and values, beside the index."""

    name = "tables"

    def __init__(self, projections: Projections) -> None:
        super().__init__(projections)
        p, c = projections, projections.config
        self._index = InvertedIndex(p)
        shape = (2, c.num_kv_heads, c.head_dim)
        self._rows = [GrowingRows(shape, p.dtype, p.device) for _ in range(c.num_layers)]

    def forget(self, at: int) -> None:
        self._index.forget(at)

    def sync(self, tokens: TokenSequence) -> None:
        if self._index.wasteful(tokens):
            kept = self._index.compact(tokens)
            for rows in self._rows:
                rows.keep(kept)
        fresh = self._index.sync(tokens)
        if len(fresh):
            self._add_rows(fresh)
        self.length = len(tokens)

    def _add_rows(self, ids: Tensor) -> None:
        p = self.projections
        states = p.states(ids)
        for layer, rows in enumerate(self._rows):
            new = rows.extend(len(ids))
            for start in range(0, len(ids), _BLOCK):
                part = slice(start, start + _BLOCK)
                k, v = p.keys_values(layer, states[part])
                new[part, 0], new[part, 1] = k, v

    def attend(self, layer: int, query: Tensor) -> Tensor:
        p, n, rows = self.projections, self.length, self._rows[layer].rows
        here = p.rotary.phases(n - 1, n, n, p.device)[0]
        weights = self._index.weights(self._coefficients(rows, probes(p, query, here)))
        kv_heads = p.config.num_kv_heads
        share = weights.t().reshape(kv_heads, -1, len(rows)).to(rows.dtype)  # (Hkv, group, U)
        values = rows[:, 1].transpose(0, 1)  # (Hkv, U, D)
        return torch.bmm(share, values).flatten(0, 1).float()

    def _coefficients(self, rows: Tensor, probe: Tensor) -> Tensor:
        """(U, H * (1 + 2F)) float32: the H columns of s first, then A and B by head."""
        p, c, half = self.projections, self.projections.config, self.projections.rotary.half
        heads, group = c.num_heads, c.num_heads // c.num_kv_heads
        out = torch.empty(len(rows), heads * (1 + 2 * half), device=p.device)
        rotated = out[:, heads:].view(len(rows), c.num_kv_heads, group * 2 * half)
        by_head = probe.view(c.num_kv_heads, group, 1 + 2 * half, c.head_dim).to(rows.dtype)
        for g in range(c.num_kv_heads):
            keys = rows[:, 0, g]  # (U, D)
            plain = by_head[g, :, 0, 2 * half :]  # (group, D - 2F)
            out[:, g * group : (g + 1) * group] = keys[:, 2 * half :] @ plain.t()
            pairs = by_head[g, :, 1:, : 2 * half].flatten(0, 1)  # (group * 2F, 2F)
            rotated[:, g] = keys[:, : 2 * half] @ pairs.t()
        return out

    @property
    def nbytes(self) -> int:
        return self._index.nbytes + sum(rows.nbytes for rows in self._rows)
