"""Layout ``cached``: ordinary keys and values per layer and position, the baseline."""

from __future__ import annotations

import torch
from torch import Tensor

from nazx_cli.context.cost import CACHED_BLOCK as BLOCK
from nazx_cli.context.layout import Layout, Projections
from nazx_cli.kernels import KernelName
from nazx_cli.kernels.base import Attended, Tokens
from nazx_cli.kernels.pytorch import OnlineSoftmax
from nazx_cli.kernels.rotary import Rotation


class CachedLayout(Layout):
    """Blocks (layers, 2, kv_heads, BLOCK, D): rotated keys, then values."""

    name = "cached"

    def __init__(self, projections: Projections, kernel: KernelName = "torch") -> None:
        super().__init__(projections, kernel)
        self._blocks: list[Tensor] = []
        self._count = 0

    def edited(self, at: int, removed: int, added: int) -> None:
        self._count = min(self._count, at)
        del self._blocks[-(-self._count // BLOCK) :]

    def sync(self, tokens: Tokens) -> None:
        p, n = self.projections, len(tokens)
        if not p.rotary.same_frequencies(self.total, tokens.total):
            self.edited(0, self._count, 0)
        self.length, self.total = n, tokens.total
        while self._count < n:
            self._fill(tokens)

    def _fill(self, tokens: Tokens) -> None:
        """Derive the rest of one block."""
        p, c = self.projections, self.projections.config
        start = self._count
        at = start % BLOCK
        if at == 0:
            shape = (c.num_layers, 2, c.num_kv_heads, BLOCK, c.head_dim)
            self._blocks.append(torch.empty(shape, dtype=p.dtype, device=p.device))
        stop = min(start - at + BLOCK, self.length)
        states = p.states(tokens.slice(start, stop))
        turn = Rotation(p.rotary.phases(start, stop, self.total, p.device), p.dtype)
        block = self._blocks[-1][..., at : at + stop - start, :]
        for layer in range(c.num_layers):
            k, v = p.keys_values(layer, states)
            block[layer, 0] = turn(k).transpose(0, 1)
            block[layer, 1] = v.transpose(0, 1)
        self._count = stop

    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Attended:
        p, n = self.projections, self.length
        c = p.config
        q = Rotation(phases[None], torch.float32)(query[None].float() * c.head_dim**-0.5)[0]
        grouped = q.to(p.dtype).view(c.num_kv_heads, -1, c.head_dim)
        softmax = OnlineSoftmax(c.head_dim, c.num_heads, p.device)
        for index, block in enumerate(self._blocks):
            used = min(n - index * BLOCK, BLOCK)
            keys, values = block[layer, :, :, :used]
            scores = torch.bmm(grouped, keys.transpose(1, 2)).float()
            weights = softmax.weigh(scores.view(1, c.num_heads, used))
            share = weights.view(c.num_kv_heads, -1, used).to(p.dtype)
            softmax.total += torch.bmm(share, values).float().flatten(0, 1).t()
        values, lse = softmax.result()
        return Attended(values.t(), lse)

    @property
    def nbytes(self) -> int:
        return sum(block.numel() * block.element_size() for block in self._blocks)
