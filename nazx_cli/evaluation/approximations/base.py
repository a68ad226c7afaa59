"""The contract of an approximation: whole sequences through a model trained with full attention,
its queries meeting other keys than all before them; or a far memory's queries (``far``).

For comparison, not for serving: keys and values are computed for every position, and what an
approximation would leave out is left out of the softmax. So the losses are those of the method,
the time is not: that is told by how many keys it reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.context.ranks.sharing import sees_plainly
from nazx_cli.errors import UsageError
from nazx_cli.model.attention.sights import rotation
from nazx_cli.model.decoder import Attend, Decoder

READ, MASS, LEAST = "keys_read", "mass", "least_for_99"
"""Figures, as shares: of the keys before a query those that it reads, representatives included; of
its attention what falls on them; of those keys the fewest that 99 % of it falls on."""
SAME, APART = "same_token", "kl"
"""And beside full attention, over positions: the share where both find the same token likeliest;
nats by which the distribution is apart from full attention's (Kullback-Leibler, KL(full || it))."""

ROWS = 256
"""Queries whose scores are held at a time."""
_EVERY = 64  # queries of which one is looked at for MASS and LEAST
_LEAST = 0.99


def check(config: ModelConfig, length: int) -> None:
    """``UsageError`` where approximations are not defined for a model, or ``length`` tokens are
    beyond it."""
    kind = config.attention.kind
    if kind != "full":
        raise UsageError(
            f"an approximation is of full attention, and this model's is {kind}",
            "make a full one: nazx convert MODEL DEST --attention full",
        )
    if not sees_plainly(config):
        raise UsageError(
            f"approximations are not defined for {config.family}: its layers have windows of "
            "their own, or caps on scores",
            "name another model with -m",
        )
    if length > config.max_positions:
        raise UsageError(
            f"{length:,} tokens are more than the {config.max_positions:,} that the model was "
            "trained for",
            f"add --ctx {config.max_positions}",
        )


class Sizes(NamedTuple):
    """Bytes of what is held: of a position as it is, of a vector that stands for keys, of one that
    stands for values, each over all layers and heads; and how many of those there are."""

    position: int
    key: int
    value: int
    heads: int

    @classmethod
    def of(cls, config: ModelConfig, width: int) -> Sizes:
        """Those of full attention, in numbers of ``width`` bytes."""
        heads = config.num_layers * config.num_kv_heads
        key = heads * config.head_dim * width
        return cls(2 * key, key, key, heads)


Scored = Callable[[Tensor], Tensor]
"""Queries (R, D) -> their scores (R, N) of the N keys that it was made of, -inf for one that is not
met."""


class Approximation(ABC):
    """One, with its settings. ``form`` shows how it is written, ``least`` the smallest value of
    each setting; ``streams`` is how many states a position has side by side, the last of which
    foretells.
    """

    name: ClassVar[str]
    form: ClassVar[str]
    least: ClassVar[tuple[int, ...]]
    streams: ClassVar[int] = 1

    def __init__(self, *settings: int) -> None:
        self._settings = settings
        self._seen: dict[str, tuple[float, int]] = {}

    def __str__(self) -> str:
        return ":".join((self.name, *map(str, self._settings)))

    @abstractmethod
    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """o (S, heads, T, D) of queries q, rotated and scaled, and keys k and values v
        (S, kv_heads, T, D), of one layer; S is ``streams``."""

    @abstractmethod
    def over(self, k: Tensor) -> Scored:
        """How much queries make of far keys k (N, D) that all stand before them. ``UsageError``
        where that is not defined."""

    @abstractmethod
    def held(self, sizes: Sizes, count: int) -> int:
        """Bytes that a context of ``count`` tokens would hold."""

    def begin(self) -> None:
        """Count figures anew."""
        self._seen = {}

    @property
    def figures(self) -> dict[str, float]:
        """Means over what was put through last, by their names above; not all have all."""
        return {name: total / count for name, (total, count) in self._seen.items()}

    def states(self, decoder: Decoder, ids: Tensor) -> Tensor:
        """(T, C) final states of ids (T,). ``UsageError`` as in ``check``."""
        check(decoder.config, len(ids))
        self.begin()
        with torch.inference_mode():
            h = decoder.embed(ids.to(decoder.device, torch.int64)).repeat(self.streams, 1)
            return decoder.hidden(h, self._attend(decoder, len(ids)))[-len(ids) :]

    def _attend(self, decoder: Decoder, count: int) -> Attend:
        config = decoder.config
        kinds = config.layer_kinds
        turns = {kind: rotation(decoder, kind.rope, range(count), count) for kind in set(kinds)}

        def attend(layer: int, a: Tensor) -> Tensor:
            qk, v = decoder.layers[layer].projected(a)
            qk, v = (x.view(self.streams, count, -1, config.head_dim) for x in (qk, v))
            qk = turns[kinds[layer]](qk).transpose(1, 2)
            q, k = qk[:, : config.num_heads], qk[:, config.num_heads :]
            o = self.attended(q * config.attention_scale, k, v.transpose(1, 2))
            return o.to(a.dtype).transpose(1, 2).reshape(len(a), -1)

        return attend

    def _note(self, name: str, values: Tensor) -> None:
        """Count ``values`` to a figure."""
        total, count = self._seen.get(name, (0.0, 0))
        self._seen[name] = (total + float(values.double().sum()), count + values.numel())


class Selecting(Approximation):
    """One whose queries meet some of the keys before them, chosen query by query."""

    @abstractmethod
    def prepared(self, k: Tensor) -> list[Tensor]:
        """What stands for the keys k (kv_heads, T, D) of a layer while they are chosen from."""

    @abstractmethod
    def kept(
        self, q: Tensor, scores: Tensor, prepared: list[Tensor], positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Which keys the queries q (heads, R, D) at ``positions`` (R,) meet: (heads, R, n) bool,
        and how many representatives each read for it, (heads, R) or fewer dimensions.

        ``scores`` (heads, R, n) are those of all keys, -inf behind the query.
        """

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        (q,), (k,), (v,) = q, k, v
        prepared, parts = self.prepared(k), []
        for start in range(0, q.shape[1], ROWS):
            rows = q[:, start : start + ROWS]
            stop = start + rows.shape[1]
            positions = torch.arange(start, stop, device=q.device)
            behind = torch.arange(stop, device=q.device) > positions[:, None]
            every = score(rows, k[:, :stop]).masked_fill_(behind, -torch.inf)
            kept, read = self.kept(rows, every, prepared, positions)
            kept &= ~behind
            self._note(READ, (kept.sum(-1) + read) / (positions + 1))
            some = positions % _EVERY == _EVERY - 1
            self._look(every[:, some], kept[:, some], positions[some])
            weights = every.masked_fill_(~kept, -torch.inf).softmax(-1)
            parts.append(mix(weights, v[:, :stop]))
        return torch.cat(parts, 1)[None]

    def over(self, k: Tensor) -> Scored:
        prepared = self.prepared(k[None])

        def scored(q: Tensor) -> Tensor:
            every = score(q[None], k[None])
            positions = torch.full((len(q),), len(k) - 1, device=q.device)
            kept, read = self.kept(q[None], every, prepared, positions)
            self._note(READ, (kept.sum(-1) + read) / len(k))
            self._look(every[:, :1], kept[:, :1], positions[:1])
            return every.masked_fill_(~kept, -torch.inf)[0]

        return scored

    def _look(self, every: Tensor, kept: Tensor, positions: Tensor) -> None:
        """Count queries at ``positions`` (r,) to MASS and LEAST, by the scores of all keys and
        those kept of them (heads, r, n)."""
        weights = every.softmax(-1)
        if weights.numel():
            self._note(MASS, (weights * kept).sum(-1))
            reached = weights.sort(-1, descending=True).values.cumsum(-1)
            least = (reached < _LEAST).sum(-1) + 1
            self._note(LEAST, least / (positions + 1))


def score(q: Tensor, k: Tensor) -> Tensor:
    """(heads, R, n) float32 products of q (heads, R, D) and k (kv_heads, n, D)."""
    grouped = q.reshape(len(k), -1, q.shape[-1])
    return torch.bmm(grouped, k.transpose(1, 2)).float().view(len(q), q.shape[1], -1)


def mix(weights: Tensor, v: Tensor) -> Tensor:
    """(heads, R, D) from weights (heads, R, n) and v (kv_heads, n, D)."""
    grouped = weights.to(v.dtype).view(len(v), -1, v.shape[1])
    return torch.bmm(grouped, v).view(*weights.shape[:2], -1)


def chunked(k: Tensor, size: int) -> Tensor:
    """(kv_heads, m, size, D): the whole chunks of k (kv_heads, T, D)."""
    whole = k.shape[1] // size
    return k[:, : whole * size].view(len(k), whole, size, k.shape[-1]).float()


def spread(chosen: Tensor, size: int, count: int) -> Tensor:
    """(..., count) bool: positions whose chunk of ``size`` is among ``chosen`` (..., m)."""
    each = chosen.repeat_interleave(size, -1)[..., :count]
    return F.pad(each, (0, count - each.shape[-1]))
