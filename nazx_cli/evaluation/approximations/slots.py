"""Attention with a bounded memory (ABC, arXiv 2110.02488): whatever the length, a fixed number of
slots into which keys and values are written.

The paper learns what goes where, or takes a rule; an untrained model leaves the rules. Here half
of the slots hold the latest positions. One that makes room for a new one goes into the other
half: into an empty slot while there is one, then into the slot whose mean key is nearest to its
own, which holds means of the keys and values that it was given and counts in the softmax as
often. Each key/value head has its own. Up to as many tokens as slots that is full attention.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.evaluation.approximations.base import READ, Approximation, dense_bytes


class Slots(Approximation):
    """So many slots."""

    name, form, least = "slots", "slots:SLOTS", (2,)

    def __init__(self, slots: int = 256) -> None:
        super().__init__(slots)
        self.slots = slots
        self.latest = slots - slots // 2

    def held(self, config: ModelConfig, count: int, width: int) -> int:
        used = min(count, self.slots)
        counts = 4 * config.num_layers * config.num_kv_heads
        return dense_bytes(config, used, width) + used * counts

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        (q,), (k,), (v,) = q.float(), k.float(), v.float()
        kv_heads, count, dim = k.shape
        grouped = q.view(kv_heads, -1, count, dim)
        slots = min(self.slots, count)
        keys, values = k.new_zeros(kv_heads, slots, dim), v.new_zeros(kv_heads, slots, dim)
        weights = k.new_zeros(kv_heads, 1, slots)  # positions that a slot stands for
        out = torch.empty_like(grouped)
        for at in range(count):
            place = at % self.latest
            if at >= self.latest:
                left = at - self.latest
                target = self._slot(keys, left)
                _add(keys, values, weights, target, k[:, left], v[:, left])
            keys[:, place], values[:, place], weights[:, :, place] = k[:, at], v[:, at], 1.0
            scores = torch.bmm(grouped[:, :, at], keys.transpose(1, 2)).add_(weights.log())
            out[:, :, at] = torch.bmm(scores.softmax(-1), values)
        seen = torch.arange(count) + 1
        self._note(READ, seen.clamp(max=slots) / seen)
        return out.view(1, -1, count, dim)

    def _slot(self, keys: Tensor, left: int) -> Tensor:
        """(kv_heads,) the slot that the position ``left``, still among the latest, goes into."""
        empty = self.latest + left
        if empty < self.slots:
            return torch.full((len(keys),), empty, device=keys.device)
        mine = keys[:, left % self.latest]
        apart: Tensor = torch.linalg.vector_norm(keys[:, self.latest :] - mine[:, None], dim=-1)
        return apart.argmin(-1) + self.latest


def _add(
    keys: Tensor, values: Tensor, weights: Tensor, target: Tensor, key: Tensor, value: Tensor
) -> None:
    """Take a position's key and value (kv_heads, D) into the means of slot ``target``."""
    head = torch.arange(len(keys), device=keys.device)
    weights[head, 0, target] += 1
    share = 1 / weights[head, 0, target, None]
    keys[head, target] += (key - keys[head, target]) * share
    values[head, target] += (value - values[head, target]) * share
