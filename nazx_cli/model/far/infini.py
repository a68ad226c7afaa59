"""The compressive memory of Infini-attention (arXiv 2404.07143): a matrix and a vector for each
layer and key/value head, whatever the length of what they stand for.

Far text is read a segment at a time, each from its own beginning, and every layer retrieves what
the segments before have left before it adds its own. With sigma(x) = ELU(x) + 1, and q, k, v not
rotated, for the query heads of each key/value head

    A_mem = sigma(q) M / (sigma(q) z)          0 where nothing was stored yet
    o = g A_mem + (1 - g) A_dot                g = sigmoid(beta) of each query head
    M += sum sigma(k)^T v                      update linear
    M += sum sigma(k)^T (v - sigma(k) M / (sigma(k) z))     update delta
    z += sum sigma(k)

A_dot is what the head takes of its own segment, or of the window. What is read are far texts alone:
live tokens that the window leaves behind are not stored.

This project's own: the weights of a model stay as they are, so the memory has additions to q, k and
v of its own, of rank r, which the segment's own attention does not see.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nazx_cli.config import ModelConfig
from nazx_cli.model.far.base import Beside, FarMemory
from nazx_cli.model.far.states import FarStates


class FarInfini(FarMemory):
    """The memory; ``config.attention`` has ``far_rank``, ``far_segment`` and ``far_update``.

    gates            (L, heads): beta
    down             (L, 3 r, C): what the additions to q, k and v are made of
    query            (L, heads * D, r), key and value (L, kv_heads * D, r)

    A state is (L, kv_heads, D, D + 1) float32: M, and z as its last column.
    """

    name = "infini"
    states: FarStates

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        attention, layers, d = config.attention, config.num_layers, config.head_dim
        self.rank, self.delta = attention.far_rank, attention.far_update == "delta"
        own, shared = config.num_heads * d, config.num_kv_heads * d
        self.gates = nn.Parameter(torch.empty(layers, config.num_heads))
        self.down = nn.Parameter(torch.empty(layers, 3 * self.rank, config.hidden_size))
        self.query = nn.Parameter(torch.empty(layers, own, self.rank))
        self.key = nn.Parameter(torch.empty(layers, shared, self.rank))
        self.value = nn.Parameter(torch.empty(layers, shared, self.rank))
        self.states = FarStates(attention.far_segment)

    def beside(self, state: Tensor | None) -> Beside:
        return _Retrieving(self, state)

    def reading(self, state: Tensor | None) -> ReadingSegment:
        return ReadingSegment(self, state)

    def take(self, states: Mapping[str, Tensor]) -> None:
        blank = self.blank()
        fitting = {
            name: state.to(blank)
            for name, state in states.items()
            if state.shape == blank.shape and state.isfinite().all()
        }
        self.states.take(fitting)

    def blank(self) -> Tensor:
        """The state before anything was stored."""
        c = self.config
        shape = c.num_layers, c.num_kv_heads, c.head_dim, c.head_dim + 1
        return torch.zeros(shape, device=self.gates.device)

    def projected(
        self, layer: int, a: Tensor, qk: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """sigma(q) (kv_heads, group * T, D), sigma(k) and v (kv_heads, T, D), all float32, of what
        attention is given."""
        heads, shared = self.config.num_heads, self.config.num_kv_heads
        q, k = qk[:, :heads], qk[:, heads:]
        if self.rank:
            low = torch.split(F.linear(a, self.down[layer].to(a.dtype)), self.rank, 1)
            ups = (each[layer].to(a.dtype) for each in (self.query, self.key, self.value))
            added = (F.linear(x, up) for x, up in zip(low, ups, strict=True))
            q, k, v = (x + more.view(x.shape) for x, more in zip((q, k, v), added, strict=True))
        q = q.transpose(0, 1).reshape(shared, -1, q.shape[-1])
        return sigma(q), sigma(k.transpose(0, 1)), v.transpose(0, 1).float()

    def gated(self, layer: int, found: Tensor, attended: Tensor) -> Tensor:
        """o (n, heads * D) of the A_mem (kv_heads, group * T, D), of whose T positions the last n
        are asked for, and of A_dot (n, heads * D)."""
        heads, d = self.config.num_heads, self.config.head_dim
        by_head = found.reshape(heads, -1, d)[:, -len(attended) :].transpose(0, 1)
        own = attended.view(by_head.shape)
        gate = self.gates[layer].float().sigmoid().unsqueeze(-1)
        return torch.lerp(own.float(), by_head, gate).to(attended.dtype).flatten(1)


class _Retrieving:
    """What live positions take of a state; see ``base.Beside``."""

    def __init__(self, memory: FarInfini, state: Tensor | None) -> None:
        self._memory = memory
        self._state = memory.blank() if state is None else state

    def __call__(self, layer: int, a: Tensor, qk: Tensor, v: Tensor, attended: Tensor) -> Tensor:
        asked = slice(len(a) - len(attended), None)
        q, _, _ = self._memory.projected(layer, a[asked], qk[asked], v[asked])
        return self._memory.gated(layer, retrieved(q, self._state[layer]), attended)


class ReadingSegment:
    """A segment of far text on its way through the layers; see ``base.Reading``."""

    def __init__(self, memory: FarInfini, state: Tensor | None) -> None:
        self._memory = memory
        self._before = memory.blank() if state is None else state
        self._after: list[Tensor] = []

    def __call__(self, layer: int, a: Tensor, qk: Tensor, v: Tensor, attended: Tensor) -> Tensor:
        q, k, value = self._memory.projected(layer, a, qk, v)
        before = self._before[layer]
        if self._memory.delta:
            value = value - retrieved(k, before)
        stored = F.pad(value, (0, 1), value=1.0)  # z is the sum of sigma(k) times one
        self._after.append(before + k.transpose(1, 2) @ stored)
        return self._memory.gated(layer, retrieved(q, before), attended)

    @property
    def after(self) -> Tensor:
        """The state with all of the segment, once it is through."""
        return torch.stack(self._after)


def sigma(x: Tensor) -> Tensor:
    """ELU(x) + 1 in float32: 0 or above."""
    return F.elu(x.float()) + 1


def retrieved(x: Tensor, state: Tensor) -> Tensor:
    """(kv_heads, n, D): what sigma(x) (kv_heads, n, D) finds in one layer's state
    (kv_heads, D, D + 1); 0 where nothing was stored."""
    found = x @ state
    total = found[..., -1:]
    return found[..., :-1] / torch.where(total > 0, total, 1.0)
