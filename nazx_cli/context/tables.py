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
from nazx_cli.context.scoring import Coefficients, probes
from nazx_cli.context.tokens import TokenSequence

_BLOCK = 4_096  # distinct tokens projected at a time


class TablesLayout(Layout):
    """Per layer, beside the index: the parts of the un-rotated keys that are rotated (kv_heads,
    U, 2F) and that are not (kv_heads, U, D - 2F), and values (kv_heads, U, D)."""

    name = "tables"

    def __init__(self, projections: Projections) -> None:
        super().__init__(projections)
        p, c = projections, projections.config
        self._index = InvertedIndex(p)
        turned = 2 * p.rotary.half
        self._layers = [
            tuple(
                GrowingRows((width,), p.dtype, p.device, lead=(c.num_kv_heads,))
                for width in (turned, c.head_dim - turned, c.head_dim)
            )
            for _ in range(c.num_layers)
        ]

    def forget(self, at: int) -> None:
        self._index.forget(at)

    def sync(self, tokens: TokenSequence) -> None:
        if self._index.wasteful(tokens):
            kept = self._index.compact(tokens)
            for tables in self._layers:
                for table in tables:
                    table.keep(kept)
        fresh = self._index.sync(tokens)
        if len(fresh):
            self._add_rows(fresh)
        self.length = len(tokens)

    def _add_rows(self, ids: Tensor) -> None:
        p = self.projections
        states = p.states(ids)
        turned = 2 * p.rotary.half
        for layer, tables in enumerate(self._layers):
            new = [table.extend(len(ids)) for table in tables]
            for start in range(0, len(ids), _BLOCK):
                part = slice(start, start + _BLOCK)
                k, v = (t.transpose(0, 1) for t in p.keys_values(layer, states[part]))
                for table, rows in zip(new, (k[..., :turned], k[..., turned:], v), strict=True):
                    table[:, part] = rows

    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Tensor:
        pairs, plain, values = (table.padded for table in self._layers[layer])
        coefs = _coefficients(pairs, plain, probes(self.projections, query, phases))
        weights = self._index.weights(coefs)
        share = weights.t().reshape(len(values), -1, values.shape[1]).to(values.dtype)
        return torch.bmm(share, values).flatten(0, 1).float()

    @property
    def nbytes(self) -> int:
        rows = sum(table.nbytes for tables in self._layers for table in tables)
        return self._index.nbytes + rows


def _coefficients(pairs: Tensor, plain: Tensor, probe: Tensor) -> Coefficients:
    """Coefficients of keys whose rotated part is ``pairs`` (kv_heads, U, 2F) and whose other
    part is ``plain``: A and B need only the first, s only the second."""
    kv_heads, count, turned = pairs.shape
    by_head = probe.view(kv_heads, -1, 1 + turned, turned + plain.shape[2]).to(pairs.dtype)
    for_s = by_head[:, :, 0, turned:].contiguous()  # (Hkv, group, D - 2F)
    for_ab = by_head[:, :, 1:, :turned].flatten(1, 2)  # (Hkv, group * 2F, 2F)
    s = torch.bmm(plain, for_s.transpose(1, 2)).float()
    ab = torch.bmm(pairs, for_ab.transpose(1, 2)).float()
    return Coefficients(
        s.transpose(0, 1).reshape(count, -1),
        ab.transpose(0, 1).reshape(count, s.shape[2] * kv_heads, turned),
    )
