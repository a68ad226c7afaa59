"""Layouts ``postings`` and ``pairs`` on the compiled kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from nazx_cli.context.growing import GrowingRows
from nazx_cli.context.layout import Layout
from nazx_cli.context.native.index import ListIndex
from nazx_cli.context.native.kernel import SPARE, Kernel, Lists
from nazx_cli.context.projections import Projections
from nazx_cli.context.scoring import plain_probes, rotary_basis
from nazx_cli.context.tokens import TokenSequence

_WIDTH = 16  # the kernel's products take states whose width is a multiple of this


class NativePostings(Layout):
    """States (U, C) in the model's type beside the posting lists; all else is made as needed."""

    name = "postings"

    def __init__(self, projections: Projections, kernel: Kernel) -> None:
        super().__init__(projections)
        p = projections
        self._kernel = kernel
        self._index = ListIndex(p)
        self._states = GrowingRows((p.config.hidden_size,), p.dtype, p.device)

    def edited(self, tokens: TokenSequence, at: int, removed: int, added: int) -> None:
        self._index.edited(at, removed, added)

    def forget(self, at: int) -> None:
        self._index.edited(at, max(0, self.length - at), 0)

    def sync(self, tokens: TokenSequence) -> None:
        fresh = self._index.sync(tokens)
        if len(fresh):
            self._states.extend(len(fresh)).copy_(self.projections.states(fresh))
        if self._index.wasteful():
            self._keep(self._index.compact())
        self.length = len(tokens)

    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Tensor:
        p, states, heads = self.projections, self._states.rows, self._kernel.heads
        key, constants = p.absorb_keys(layer, plain_probes(p, query))
        key, constants = key.flatten(0, 1), constants.flatten()  # (H, C), (H,)
        blocks = [slice(at, at + heads) for at in range(0, len(query), heads)]
        lists = [self._lists(layer, block) for block in blocks]
        kernel = self._kernel
        if p.dtype is torch.float32 and states.shape[1] % _WIDTH == 0:
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
        return p.project_values(layer, self._mix(weights.to(states.dtype)))

    def _mix(self, weights: Tensor) -> Tensor:
        """(H, C): states summed by weights (U, H)."""
        return weights.t() @ self._states.rows

    @property
    def nbytes(self) -> int:
        return self._index.nbytes + self._states.nbytes

    def _lists(self, layer: int, block: slice) -> Lists:
        """The index with the pairs of one layer and block of heads."""
        rows = self._states.rows
        pairs = rows.new_empty(len(rows) + _spare_rows(self._pair_width), self._pair_width)
        self._pairs_of(layer, block, rows, pairs[: len(rows)])
        return Lists(self._index.lists, self._index.phases, pairs)

    @property
    def _pair_width(self) -> int:
        return 2 * self.projections.rotary.half * self._kernel.heads

    def _pairs_of(self, layer: int, block: slice, states: Tensor, out: Tensor) -> None:
        """Key components that RoPE turns, (n, 2F * H) of ``states`` (n, C), into ``out``."""
        p = self.projections
        vectors, constants = p.absorb_keys(layer, rotary_basis(p))  # (H, 2F, C), (H, 2F)
        matrix = vectors[block].transpose(0, 1).flatten(0, 1).to(states.dtype)
        offset = constants[block].t().flatten().to(states.dtype)
        torch.addmm(offset, states, matrix.t(), out=out)

    def _keep(self, which: Tensor) -> None:
        self._states.keep(which)


class NativePairs(NativePostings):
    """And per layer the key components that RoPE turns, (U, 2F, H).

    They are made when a layer is first asked for: the first token must make them anyway. In
    bfloat16 the states are held a second time, as columns: the CPU's matrix units mix those twice
    as quickly.
    """

    name = "pairs"

    def __init__(self, projections: Projections, kernel: Kernel) -> None:
        super().__init__(projections, kernel)
        width, p = self._pair_width, projections
        blocks = p.config.num_heads // kernel.heads
        self._pairs = [
            [
                GrowingRows((width,), p.dtype, p.device, spare=_spare_rows(width))
                for _ in range(blocks)
            ]
            for _ in range(p.config.num_layers)
        ]
        self._columns: GrowingRows | None = None
        if p.dtype is torch.bfloat16:
            self._columns = GrowingRows((), p.dtype, p.device, lead=(p.config.hidden_size,))

    def sync(self, tokens: TokenSequence) -> None:
        super().sync(tokens)
        if self._columns is not None and (missing := self._states.count - self._columns.count):
            new = self._states.rows[self._columns.count :]
            self._columns.extend(missing).copy_(new.t())

    def _mix(self, weights: Tensor) -> Tensor:
        if self._columns is None:
            return super()._mix(weights)
        return (self._columns.rows @ weights).t()

    def _lists(self, layer: int, block: slice) -> Lists:
        table = self._pairs[layer][block.start // self._kernel.heads]
        known = table.count
        if missing := self._states.count - known:
            self._pairs_of(layer, block, self._states.rows[known:], table.extend(missing))
        return Lists(self._index.lists, self._index.phases, table.padded)

    def _keep(self, which: Tensor) -> None:
        super()._keep(which)
        if self._columns is not None:
            self._columns.keep(which[which < self._columns.count])
        for tables in self._pairs:
            for table in tables:
                table.keep(which[which < table.count])

    @property
    def nbytes(self) -> int:
        columns = 0 if self._columns is None else self._columns.nbytes
        return super().nbytes + columns + sum(t.nbytes for row in self._pairs for t in row)


def _spare_rows(width: int) -> int:
    return -(-SPARE // width)
