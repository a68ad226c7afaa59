"""Layouts ``postings`` and ``pairs`` on the compiled kernel."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor

from nazx_cli.context.growing import GrowingRows
from nazx_cli.context.native.kernel import Kernel, Lists
from nazx_cli.context.native.listed import ListedStates
from nazx_cli.context.projections import Projections
from nazx_cli.context.scoring import plain_probes, rotary_basis


class NativePostings(ListedStates):
    """What is beyond states and posting lists is made as needed."""

    name = "postings"

    def __init__(self, projections: Projections, kernel: Kernel) -> None:
        super().__init__(projections)
        self._kernel = kernel

    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Tensor:
        p, states, heads = self.projections, self._states.rows, self._kernel.heads
        key, constants = p.absorb_keys(layer, plain_probes(p, query))
        key, constants = key.flatten(0, 1), constants.flatten()  # (H, C), (H,)
        blocks = [slice(at, at + heads) for at in range(0, len(query), heads)]
        lists = [self._lists(layer, block) for block in blocks]
        kernel = self._kernel
        if kernel.multiplies(states.shape[1]):
            mixed = [
                kernel.attend(query[b], phases, at, states, key[b], constants[b])
                for b, at in zip(blocks, lists, strict=True)
            ]
            return p.project_values(layer, torch.cat(mixed))
        s = (states @ key.to(states.dtype).t()).float().add_(constants)
        parts = [
            kernel.weights(query[b], phases, at, s[:, b])
            for b, at in zip(blocks, lists, strict=True)
        ]
        weights = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return p.project_values(layer, weights.to(states.dtype).t() @ states)

    def _lists(self, layer: int, block: slice) -> Lists:
        """The index with the pairs of one layer and block of heads."""
        rows, longest = self._states.rows, self._kernel.no_lengths()
        pairs = rows.new_empty(len(rows), self._pair_width)
        self._pairs_of(layer, block, rows, pairs)
        self._kernel.measure(pairs, 0, len(rows), longest)
        return Lists(self._index.lists, self._index.phases, pairs, longest)

    @property
    def _pair_width(self) -> int:
        return 2 * self.projections.rotary.half * self._kernel.heads

    def _pairs_of(self, layer: int, block: slice, states: Tensor, out: Tensor) -> None:
        """Key components that RoPE turns, (n, 2F * H) of ``states`` (n, C), into ``out``, in the
        kernel's order."""
        p = self.projections
        vectors, constants = p.absorb_keys(layer, rotary_basis(p))  # (H, 2F, C), (H, 2F)
        matrix = self._kernel.pair_rows(vectors[block]).to(states.dtype)
        offset = self._kernel.pair_rows(constants[block]).to(states.dtype)
        torch.addmm(offset, states, matrix.t(), out=out)


class NativePairs(NativePostings):
    """And per layer the key components that RoPE turns, (U, 2F * H).

    They are made when a layer is first asked for: the first token must make them anyway.
    """

    name = "pairs"

    def __init__(self, projections: Projections, kernel: Kernel) -> None:
        super().__init__(projections, kernel)
        blocks = projections.config.num_heads // kernel.heads
        self._pairs = [
            [_Pairs(projections, kernel, self._pair_width) for _ in range(blocks)]
            for _ in range(projections.config.num_layers)
        ]

    def _lists(self, layer: int, block: slice) -> Lists:
        pairs = self._pairs[layer][block.start // self._kernel.heads]
        known, table = pairs.table.count, pairs.table
        if missing := self._states.count - known:
            self._pairs_of(layer, block, self._states.rows[known:], table.extend(missing))
            self._kernel.measure(table.rows, known, table.count, pairs.longest)
        return Lists(self._index.lists, self._index.phases, table.rows, pairs.longest)

    def _keep(self, which: Tensor) -> None:
        super()._keep(which)
        for pairs in chain.from_iterable(self._pairs):
            pairs.table.keep(which[which < pairs.table.count])

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(pairs.nbytes for pairs in chain.from_iterable(self._pairs))


class _Pairs:
    """The table of one layer and block of heads; ``longest`` may be of tokens that are gone."""

    def __init__(self, projections: Projections, kernel: Kernel, width: int) -> None:
        self.table = GrowingRows((width,), projections.dtype, projections.device)
        self.longest = kernel.no_lengths()

    @property
    def nbytes(self) -> int:
        return self.table.nbytes + self.longest.nbytes
