"""Layout ``tables``: posting lists and per-layer key and value rows per distinct token.

More memory than ``postings``, bounded by the vocabulary, and less arithmetic per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nazx_cli.context.layout import Projections
from nazx_cli.context.postings import PostingListLayout
from nazx_cli.kernels import KernelName
from nazx_cli.kernels.base import Attended, PairTable
from nazx_cli.kernels.pytorch import plain_probes
from nazx_cli.kernels.rows import GrowingRows

_BLOCK = 4_096  # distinct tokens projected at a time


@dataclass(frozen=True)
class _Tables:
    """Of one layer: the parts of the un-rotated keys that are rotated and that are not (kv_heads,
    U, D - 2F), and values (kv_heads, U, D)."""

    pairs: PairTable
    plain: GrowingRows
    values: GrowingRows


class TablesLayout(PostingListLayout):
    """Tables of every layer beside the index."""

    name = "tables"

    def __init__(self, projections: Projections, kernel: KernelName = "torch") -> None:
        super().__init__(projections, kernel)
        self._turned = 2 * projections.rotary.half
        dim = projections.config.head_dim

        def rows(width: int) -> GrowingRows:
            lead = (projections.config.num_kv_heads,)
            return GrowingRows((width,), projections.dtype, projections.device, lead)

        self._layers = [
            _Tables(self._index.new_pairs(), rows(dim - self._turned), rows(dim))
            for _ in range(projections.config.num_layers)
        ]

    def _add(self, ids: Tensor) -> None:
        p, turned = self.projections, self._turned
        states = p.states(ids)
        for layer, tables in enumerate(self._layers):
            plain, values, rotated = (
                tables.plain.extend(len(ids)),
                tables.values.extend(len(ids)),
                [],
            )
            for start in range(0, len(ids), _BLOCK):
                part = slice(start, start + _BLOCK)
                k, v = p.keys_values(layer, states[part])
                rotated.append(k[..., :turned])
                plain[:, part] = k[..., turned:].transpose(0, 1)
                values[:, part] = v.transpose(0, 1)
            tables.pairs.put(torch.cat(rotated))

    def _keep(self, slots: Tensor) -> None:
        for tables in self._layers:
            for table in (tables.pairs, tables.plain, tables.values):
                table.keep(slots)

    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Attended:
        tables, kv_heads = self._layers[layer], self.projections.config.num_kv_heads
        plain, values = tables.plain.padded, tables.values.padded  # contiguous, unlike ``rows``
        probes = plain_probes(query, self._turned // 2, kv_heads)[..., self._turned :]
        s = torch.bmm(plain, probes.to(plain.dtype).transpose(1, 2)).float()
        s = s.transpose(0, 1).flatten(1)  # (U, heads)
        weights, lse = self._index.weights(query, phases, s, tables.pairs)
        share = weights.t().reshape(kv_heads, -1, len(s)).to(values.dtype)
        return Attended(torch.bmm(share, values).flatten(0, 1).float(), lse)

    @property
    def nbytes(self) -> int:
        rows = sum(t.pairs.nbytes + t.plain.nbytes + t.values.nbytes for t in self._layers)
        return self._index.nbytes + rows
