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

from nazx_cli.evaluation.approximations.base import READ, Approximation, Scored, Sizes


class Slots(Approximation):
    """So many slots."""

    name, form, least = "slots", "slots:SLOTS", (2,)

    def __init__(self, slots: int = 256) -> None:
        super().__init__(slots)
        self.slots = slots
        self.latest = slots - slots // 2

    def held(self, sizes: Sizes, count: int) -> int:
        latest = min(count, self.latest)
        means = min(count, self.slots) - latest
        counts = 4 * sizes.heads * (latest + means)
        return latest * sizes.position + means * (sizes.key + sizes.value) + counts

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        (q,), (k,), (v,) = q.float(), k.float(), v.float()
        kv_heads, count, dim = k.shape
        grouped = q.view(kv_heads, -1, count, dim)
        memory = _Memory(self, k, v)
        out = torch.empty_like(grouped)
        for at in range(count):
            memory.take(at)
            scores = torch.bmm(grouped[:, :, at], memory.keys.transpose(1, 2))
            out[:, :, at] = torch.bmm(scores.add_(memory.weights.log()).softmax(-1), memory.values)
        seen = torch.arange(count) + 1
        self._note(READ, seen.clamp(max=memory.size) / seen)
        return out.view(1, -1, count, dim)

    def over(self, k: Tensor) -> Scored:
        """A key that a slot's mean stands for scores as that does: the slot counts as often."""
        k = k.float()[None]
        memory = _Memory(self, k, k[..., :0])
        places = torch.cat([memory.take(at) for at in range(k.shape[1])])
        # What took a place of the latest has left it for a mean since, but for the last ones.
        left = max(0, k.shape[1] - self.latest)
        latest = torch.arange(left, k.shape[1], device=k.device) % self.latest
        places = torch.cat((places[self.latest :], latest))

        def scored(q: Tensor) -> Tensor:
            self._note(READ, torch.full((len(q),), memory.size / k.shape[1]))
            return (q.float() @ memory.keys[0].t())[:, places]

        return scored


class _Memory:
    """The slots of ``of`` while the positions of keys k and values v (kv_heads, T, D) are taken:
    mean ``keys`` and ``values`` (kv_heads, size, D), and how many positions each stands for,
    ``weights`` (kv_heads, 1, size)."""

    def __init__(self, of: Slots, k: Tensor, v: Tensor) -> None:
        kv_heads, count, dim = k.shape
        self._k, self._v, self._latest, self._slots = k, v, of.latest, of.slots
        self.size = min(of.slots, count)
        self.keys = k.new_zeros(kv_heads, self.size, dim)
        self.values = v.new_zeros(kv_heads, self.size, v.shape[-1])
        self.weights = k.new_zeros(kv_heads, 1, self.size)
        self._head = torch.arange(kv_heads, device=k.device)

    def take(self, at: int) -> Tensor:
        """Put position ``at`` among the latest; (kv_heads,) the slot that the one which makes room
        for it goes into, its own place where none has to."""
        place = at % self._latest
        target = torch.full_like(self._head, place)
        if (left := at - self._latest) >= 0:
            target = self._slot(left)
            self._add(target, self._k[:, left], self._v[:, left])
        self.keys[:, place], self.values[:, place] = self._k[:, at], self._v[:, at]
        self.weights[:, :, place] = 1.0
        return target

    def _slot(self, left: int) -> Tensor:
        """(kv_heads,) the slot that the position ``left``, still among the latest, goes into."""
        empty = self._latest + left
        if empty < self._slots:
            return torch.full_like(self._head, empty)
        mine = self.keys[:, left % self._latest]
        apart: Tensor = torch.linalg.vector_norm(
            self.keys[:, self._latest :] - mine[:, None], dim=-1
        )
        return apart.argmin(-1) + self._latest

    def _add(self, target: Tensor, key: Tensor, value: Tensor) -> None:
        """Take a position's key and value (kv_heads, D) into the means of slot ``target``."""
        head = self._head
        self.weights[head, 0, target] += 1
        share = 1 / self.weights[head, 0, target, None]
        self.keys[head, target] += (key - self.keys[head, target]) * share
        self.values[head, target] += (value - self.values[head, target]) * share
