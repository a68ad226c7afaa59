"""Layout ``pairs``: as ``postings``, and per layer the key components that RoPE turns.

Those are a quarter of a key at 25 % rotary dimensions, and all that a position's own score asks
for: the rest of keys and values stays absorbed in the states that the layers share.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nazx_cli.context.growing import GrowingRows
from nazx_cli.context.postings import PostingsLayout
from nazx_cli.context.projections import Projections
from nazx_cli.context.scoring import Coefficients, plain_probes, probes, rotary_basis


class PairsLayout(PostingsLayout):
    """States (U, C) and, per layer, pairs (kv_heads, U, 2F) beside the inverted index."""

    name = "pairs"

    def __init__(self, projections: Projections) -> None:
        super().__init__(projections)
        p, c = projections, projections.config
        self._pairs = [
            GrowingRows((2 * p.rotary.half,), p.dtype, p.device, lead=(c.num_kv_heads,))
            for _ in range(c.num_layers)
        ]

    def _keep(self, slots: Tensor) -> None:
        super()._keep(slots)
        for table in self._pairs:
            table.keep(slots[slots < table.count])

    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Tensor:
        p, states = self.projections, self._states.rows
        key, constants = p.absorb_keys(layer, plain_probes(p, query))
        key, constants = key.flatten(0, 1), constants.flatten()  # (heads, C), (heads,)
        s = (states @ key.to(states.dtype).t()).float().add_(constants)
        ab = self._rotated(layer, probes(p, query, phases))[:, : len(states)]
        weights = self._index.weights(Coefficients(s, ab.transpose(0, 1)))
        return p.project_values(layer, weights.t().to(states.dtype) @ states)

    def _rotated(self, layer: int, probe: Tensor) -> Tensor:
        """A and B of every token, (heads, U, 2F) float32, spare rows included."""
        table = self._pairs[layer]
        if missing := self._states.count - table.count:
            self._fill(layer, self._states.rows[table.count :], table.extend(missing))
        pairs = table.padded
        kv_heads, count, turned = pairs.shape
        by_head = probe.view(kv_heads, -1, 1 + turned, probe.shape[-1])[:, :, 1:, :turned]
        for_ab = by_head.flatten(1, 2).to(pairs.dtype)  # (kv_heads, group * 2F, 2F)
        ab = torch.bmm(pairs, for_ab.transpose(1, 2)).float()
        return ab.view(kv_heads, count, -1, turned).transpose(1, 2).flatten(0, 1)

    def _fill(self, layer: int, states: Tensor, out: Tensor) -> None:
        vectors, constants = self.projections.absorb_keys(layer, rotary_basis(self.projections))
        rows = torch.matmul(states, vectors.to(states.dtype).transpose(1, 2))  # (kv_heads, n, 2F)
        out.copy_(rows + constants[:, None].to(states.dtype))

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(table.nbytes for table in self._pairs)
