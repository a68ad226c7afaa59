"""The index on the compiled kernel: posting lists, and pairs in the order that it reads them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.kernels.base import Attended, PairTable, joined
from nazx_cli.kernels.lists import ListIndex
from nazx_cli.kernels.native.kernel import Kernel, Lists, kernel_for
from nazx_cli.kernels.rows import GrowingRows


class NativePairs(PairTable):
    """Pairs (U, 2F * H) of each block of H heads; ``longest`` bounds their lengths, maybe those of
    tokens that are gone."""

    def __init__(self, kernel: Kernel, heads: int) -> None:
        width, cpu = 2 * kernel.half * kernel.heads, torch.device("cpu")
        blocks = range(heads // kernel.heads)
        super().__init__([GrowingRows((width,), kernel.dtype, cpu) for _ in blocks])
        self.longest = [kernel.no_lengths() for _ in blocks]
        self.heads = [slice(i * kernel.heads, (i + 1) * kernel.heads) for i in blocks]
        self._kernel = kernel

    def derive(self, states: Tensor, vectors: Tensor, constants: Tensor) -> None:
        for heads, table in zip(self.heads, self.tables, strict=True):
            matrix = self._kernel.pair_rows(vectors[heads]).to(states.dtype)
            offset = self._kernel.pair_rows(constants[heads]).to(states.dtype)
            torch.addmm(offset, states, matrix.t(), out=table.extend(len(states)))
        self._measure(len(states))

    def put(self, keys: Tensor) -> None:
        for heads, table in zip(self.heads, self.tables, strict=True):
            ordered = self._kernel.pair_rows(keys[:, heads].permute(1, 2, 0))
            table.extend(len(keys)).copy_(ordered.t())
        self._measure(len(keys))

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(longest.nbytes for longest in self.longest)

    def _measure(self, new: int) -> None:
        count = self.count
        for table, longest in zip(self.tables, self.longest, strict=True):
            self._kernel.measure(table.rows, count - new, count, longest)


class NativeIndex(ListIndex):
    """Posting lists that ``attention.c`` goes through."""

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(config, device, dtype)
        self._kernel = cast(Kernel, kernel_for(config, device, dtype))

    def new_pairs(self) -> NativePairs:
        return NativePairs(self._kernel, self.config.num_heads)

    def weights(self, query: Tensor, phases: Tensor, s: Tensor, pairs: PairTable) -> Attended:
        parts = [
            self._kernel.weights(query[heads], phases, at, s[:, heads])
            for heads, at in self._blocks(pairs)
        ]
        weights, lse = joined(parts, 1)
        if len(weights) < len(s):
            weights = torch.nn.functional.pad(weights, (0, 0, 0, len(s) - len(weights)))
        return Attended(weights, lse)

    def attend(
        self,
        query: Tensor,
        phases: Tensor,
        key: Tensor,
        constants: Tensor,
        states: Tensor,
        pairs: PairTable,
    ) -> Attended:
        if not self._kernel.multiplies(states.shape[1]):
            return super().attend(query, phases, key, constants, states, pairs)
        mixed = [
            self._kernel.attend(query[heads], phases, at, states, key[heads], constants[heads])
            for heads, at in self._blocks(pairs)
        ]
        return joined(mixed, 0)

    def _blocks(self, pairs: PairTable) -> list[tuple[slice, Lists]]:
        own = cast(NativePairs, pairs)
        return [
            (heads, Lists(self.lists, self.phases, table.rows, longest))
            for heads, table, longest in zip(own.heads, own.tables, own.longest, strict=True)
        ]
