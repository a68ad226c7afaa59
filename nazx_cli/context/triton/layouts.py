"""Layouts ``postings`` and ``pairs`` on the Triton kernel.

States, pairs and products are on the device; the posting lists are kept on the CPU, where edits
are applied, and as segments on the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nazx_cli.context.growing import GrowingRows
from nazx_cli.context.native.listed import ListedStates
from nazx_cli.context.projections import Projections
from nazx_cli.context.scoring import plain_probes, rotary_basis
from nazx_cli.context.tokens import TokenSequence
from nazx_cli.context.triton.segments import Segments


class TritonPostings(ListedStates):
    """What is beyond states and posting lists is made as needed."""

    name = "postings"

    def __init__(self, projections: Projections) -> None:
        from nazx_cli.context.triton.weigh import weights

        super().__init__(projections)
        self._weights = weights
        self._segments = Segments(projections.device)
        self._held = 0  # positions that the segments hold, all of them where they stand now

    def edited(self, tokens: TokenSequence, at: int, removed: int, added: int) -> None:
        super().edited(tokens, at, removed, added)
        if at < self._held:
            self._held = 0

    def forget(self, at: int) -> None:
        super().forget(at)
        if at < self._held:
            self._held = 0

    def sync(self, tokens: TokenSequence) -> None:
        super().sync(tokens)
        self._to_device(tokens)

    def _to_device(self, tokens: TokenSequence) -> None:
        """Bring phases and segments up to the index; after appending, by the new tokens only."""
        phases, device = self._index.phases, self.projections.device
        if phases.inner.device != device:
            phases.outer, phases.inner = phases.outer.to(device), phases.inner.to(device)
        new = self.length - self._held
        if not self._held or new > self._segments.room:
            self._segments.build(self._index.lists)
        elif new:
            self._segments.append(self._index.slots.of(tokens.slice(self._held, self.length)))
        self._held = self.length

    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Tensor:
        p, states = self.projections, self._states.rows
        key, constants = p.absorb_keys(layer, plain_probes(p, query))
        key, constants = key.flatten(0, 1), constants.flatten()  # (H, C), (H,)
        s = (states @ key.to(states.dtype).t()).float().add_(constants)
        pairs = self._pairs_of(layer)
        weights = self._weights(query, phases, s, pairs, self._segments, self._index.phases)
        return p.project_values(layer, weights.t().to(states.dtype) @ states)

    def _pairs_of(self, layer: int) -> Tensor:
        """(U, 2F * kv_heads) key components of every token that RoPE turns."""
        return self._new_pairs(layer, self._states.rows)

    def _new_pairs(self, layer: int, states: Tensor) -> Tensor:
        """Pairs (n, 2F * kv_heads) of ``states`` (n, C)."""
        p = self.projections
        vectors, constants = p.absorb_keys(layer, rotary_basis(p))  # (Hkv, 2F, C), (Hkv, 2F)
        matrix = vectors.transpose(0, 1).flatten(0, 1).to(states.dtype)
        return torch.addmm(constants.t().flatten().to(states.dtype), states, matrix.t())

    def _keep(self, which: Tensor) -> None:
        super()._keep(which)
        self._held = 0

    @property
    def nbytes(self) -> int:
        return super().nbytes + self._segments.nbytes


class TritonPairs(TritonPostings):
    """And per layer the pairs (U, 2F * kv_heads), made when a layer is first asked for."""

    name = "pairs"

    def __init__(self, projections: Projections) -> None:
        super().__init__(projections)
        p, c = projections, projections.config
        width = 2 * p.rotary.half * c.num_kv_heads
        self._pairs = [GrowingRows((width,), p.dtype, p.device) for _ in range(c.num_layers)]

    def _pairs_of(self, layer: int) -> Tensor:
        table = self._pairs[layer]
        known = table.count
        if missing := self._states.count - known:
            table.extend(missing).copy_(self._new_pairs(layer, self._states.rows[known:]))
        return table.padded

    def _keep(self, which: Tensor) -> None:
        super()._keep(which)
        for table in self._pairs:
            table.keep(which[which < table.count])

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(table.nbytes for table in self._pairs)
