"""Landmark attention (arXiv 2305.16300): each block of keys has one that stands for it, and a
query meets the blocks whose landmarks it attends to most, beside its own block.

The paper trains a token for that; a model that was not trained so has none, and the mean of a
block's rotated keys stands for it. The weights are then one softmax over the keys of all blocks
chosen, where the paper's are a product of a block's and a key's. Each head of each query chooses
by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nazx_cli.evaluation.approximations.base import (
    Selecting,
    Sizes,
    chunked,
    score,
    spread,
)


class Landmark(Selecting):
    """Blocks of so many keys, and how many are chosen."""

    name, form, least = "landmark", "landmark:BLOCK:BLOCKS", (1, 1)

    def __init__(self, block: int = 64, blocks: int = 8) -> None:
        super().__init__(block, blocks)
        self.block, self.blocks = block, blocks

    def held(self, sizes: Sizes, count: int) -> int:
        return sizes.position * count + count // self.block * sizes.key

    def prepared(self, k: Tensor) -> list[Tensor]:
        return [chunked(k, self.block).mean(2)]

    def kept(
        self, q: Tensor, scores: Tensor, prepared: list[Tensor], positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        (means,) = prepared
        count, own = scores.shape[-1], positions // self.block
        earlier = torch.arange(means.shape[1], device=q.device) < own[:, None]  # (R, m)
        marks = score(q.float(), means).masked_fill_(~earlier, -torch.inf)
        best = marks.topk(min(self.blocks, marks.shape[-1])).indices
        chosen = torch.zeros_like(marks, dtype=torch.bool).scatter_(-1, best, True) & earlier
        at = torch.arange(count, device=q.device)
        return spread(chosen, self.block, count) | (at // self.block == own[:, None]), own
