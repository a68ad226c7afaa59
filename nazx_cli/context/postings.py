"""Layouts over posting lists: rows per distinct token beside a kernel's inverted index.

``postings`` keeps one standardized state per distinct token. Projections are absorbed, so that
memory hardly grows with the number of layers. ``pairs`` also keeps, per layer, the key components
that RoPE turns: a quarter of a key at 25 % rotary dimensions, and all that a position's own score
asks for; the rest of keys and values stays absorbed in the states that the layers share.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from nazx_cli.context.cost import STATES_BLOCK
from nazx_cli.context.layout import Layout, Projections
from nazx_cli.kernels import KernelName, new_index
from nazx_cli.kernels.base import Attended, PairTable, Tokens
from nazx_cli.kernels.pytorch import plain_probes
from nazx_cli.kernels.rows import GrowingRows


class PostingListLayout(Layout):
    """What layouts over an index share: rows of its slots that come and go with it."""

    def __init__(self, projections: Projections, kernel: KernelName = "torch") -> None:
        super().__init__(projections, kernel)
        p = projections
        self.kernel = kernel
        self._index = new_index(kernel, p.config, p.device, p.dtype)

    def edited(self, at: int, removed: int, added: int) -> None:
        self._index.edited(at, removed, added)

    def sync(self, tokens: Tokens) -> None:
        fresh, kept = self._index.sync(tokens)
        if len(fresh):
            self._add(fresh)
        if kept is not None:
            self._keep(kept)
        self.length, self.total = len(tokens), tokens.total

    @abstractmethod
    def _add(self, ids: Tensor) -> None:
        """Add rows for the next slots, which are those of token ids (n,)."""

    @abstractmethod
    def _keep(self, slots: Tensor) -> None:
        """Keep the rows of ``slots`` (n,), in that order."""


class PostingsLayout(PostingListLayout):
    """States (U, C) in the model's type beside the index."""

    name = "postings"

    def __init__(self, projections: Projections, kernel: KernelName = "torch") -> None:
        super().__init__(projections, kernel)
        p = projections
        self._states = GrowingRows((p.config.hidden_size,), p.dtype, p.device)

    def _add(self, ids: Tensor) -> None:
        new = self._states.extend(len(ids))
        for start in range(0, len(ids), STATES_BLOCK):
            part = slice(start, start + STATES_BLOCK)
            new[part] = self.projections.states(ids[part])

    def _keep(self, slots: Tensor) -> None:
        self._states.keep(slots)

    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Attended:
        p = self.projections
        probes = plain_probes(query, p.rotary.half, p.config.num_kv_heads)
        key, constants = (t.flatten(0, 1) for t in p.absorb_keys(layer, probes))  # (H, C), (H,)
        pairs = self._pairs_of(layer)
        mixed, lse = self._index.attend(query, phases, key, constants, self._states.rows, pairs)
        return Attended(p.project_values(layer, mixed), lse)

    def _pairs_of(self, layer: int) -> PairTable:
        return self._index.pairs_of(self._states.rows, *self.projections.rotary_keys(layer))

    @property
    def nbytes(self) -> int:
        return self._index.nbytes + self._states.nbytes


class PairsLayout(PostingsLayout):
    """And pairs per layer, made when a layer is first asked for: the first token must make them
    anyway."""

    name = "pairs"

    def __init__(self, projections: Projections, kernel: KernelName = "torch") -> None:
        super().__init__(projections, kernel)
        self._pairs = [self._index.new_pairs() for _ in range(projections.config.num_layers)]

    def _keep(self, slots: Tensor) -> None:
        super()._keep(slots)
        for pairs in self._pairs:
            pairs.keep(slots[slots < pairs.count])

    def _pairs_of(self, layer: int) -> PairTable:
        pairs = self._pairs[layer]
        if missing := self._states.count - pairs.count:
            pairs.derive(self._states.rows[-missing:], *self.projections.rotary_keys(layer))
        return pairs

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(pairs.nbytes for pairs in self._pairs)
