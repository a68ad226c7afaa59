"""Star Attention (arXiv 2411.17116): the context in blocks that do not see each other, each with
the first block, its anchor, before it; what follows the context sees the keys of all blocks.

Here a text is foretold block by block, as if each were what follows the ones before it. A
position has therefore two states: one as context, which has seen the anchor and its own block,
and one that foretells, which meets the keys that the blocks before its own have as context. With
keys of several blocks in one softmax, numerators and denominators merge as they do when blocks
lie on several hosts. Positions are the true ones. A rest of less than half a block belongs to the
last block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.evaluation.approximations.base import READ, Approximation, dense_bytes


class Star(Approximation):
    """Blocks of so many tokens."""

    name, form, least, streams = "star", "star:BLOCK", (1,), 2

    def __init__(self, block: int = 512) -> None:
        super().__init__(block)
        self.block = block

    def held(self, config: ModelConfig, count: int, width: int) -> int:
        return dense_bytes(config, count, width)

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        for start, stop in self.blocks(q.shape[2]):
            own, anchor = slice(start, stop), min(start, self.block)
            for stream, before in ((0, anchor), (1, start)):
                keys, values = (torch.cat((x[0, :, :before], x[stream, :, own]), 1) for x in (k, v))
                seen = torch.ones(stop - start, keys.shape[1], dtype=torch.bool, device=q.device)
                out[stream, :, own] = F.scaled_dot_product_attention(
                    q[stream : stream + 1, :, own],
                    keys[None],
                    values[None],
                    attn_mask=seen.tril(before),
                    scale=1.0,
                    enable_gqa=q.shape[1] != k.shape[1],
                )[0]
            positions = torch.arange(start, stop) + 1
            self._note(READ, (positions - start + anchor) / positions)
        return out

    def blocks(self, count: int) -> list[tuple[int, int]]:
        """(first, behind the last) position of each block."""
        starts = list(range(0, count, self.block))
        if len(starts) > 1 and 2 * (count - starts[-1]) < self.block:
            starts.pop()
        return list(zip(starts, [*starts[1:], count], strict=True))
