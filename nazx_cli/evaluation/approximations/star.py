"""Star Attention (arXiv 2411.17116), as ``context.ranks.sharing`` defines it.

Here a text is foretold block by block, as if each were what follows the ones before it. A
position has therefore two states: one as context, which has seen the anchor and its own block,
and one that foretells, which meets the keys that the blocks before its own have as context. With
keys of several blocks in one softmax, numerators and denominators merge as they do when blocks
lie on several hosts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nazx_cli.context.ranks.sharing import anchor, cut
from nazx_cli.errors import UsageError
from nazx_cli.evaluation.approximations.base import READ, Approximation, Scored, Sizes


class Star(Approximation):
    """Blocks of so many tokens."""

    name, form, least, streams = "star", "star:BLOCK", (1,), 2

    def __init__(self, block: int = 512) -> None:
        super().__init__(block)
        self.block = block

    def held(self, sizes: Sizes, count: int) -> int:
        return sizes.position * count

    def over(self, k: Tensor) -> Scored:
        raise UsageError(
            "star leaves a far memory as it is: what its keys know is no attention's",
            "leave it out, or --before",
        )

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        for start, stop in cut(0, q.shape[2], self.block):
            own, first = slice(start, stop), anchor(start, self.block)
            for stream, before in ((0, first), (1, start)):
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
            self._note(READ, (positions - start + first) / positions)
        return out
