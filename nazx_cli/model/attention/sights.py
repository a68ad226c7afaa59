"""What the layers of a windowed or full model see: which positions, and rotated how, in a whole
sequence and over a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from nazx_cli.context.live_cache import LiveCache
from nazx_cli.families.base import LayerKind
from nazx_cli.families.rope import RopeConfig
from nazx_cli.kernels.native.step import Sight
from nazx_cli.kernels.rotary import Rotation
from nazx_cli.model.attention.softmax import Softmax
from nazx_cli.model.decoder import Attend, Decoder
from nazx_cli.model.far.base import Beside

Look = Callable[[int, Tensor, Tensor], Tensor]
"""(layer, qk (T, heads + kv_heads, D), v (T, kv_heads, D)) -> o (T, heads * D), or the last rows"""
Turn = Callable[[Tensor], Tensor]
"""x (T, heads, D) rotated to the positions of its rows."""


@dataclass(frozen=True)
class Reach:
    """Which positions a query sees; ``window`` None means all before it."""

    window: int | None
    sinks: int

    @property
    def size(self) -> int | None:
        """Positions seen at most: sinks + window."""
        return None if self.window is None else self.window + self.sinks

    def plain(self, stop: int) -> bool:
        """Whether every position before ``stop`` sees all positions before it."""
        return self.size is None or stop <= self.size

    def of(self, kind: LayerKind) -> Reach:
        """What a layer of this kind sees where the others have this reach."""
        if kind.window is None or (self.window is not None and kind.window > self.window):
            return self
        return Reach(kind.window, 0)

    def length(self, count: int) -> int:
        """The sequence length that length-dependent RoPE types are told."""
        return count if self.size is None else min(count, self.size)


def rotation(
    decoder: Decoder, rope: RopeConfig | None, positions: Tensor | range, length: int
) -> Turn:
    """Rotation to ``positions``, in a sequence of ``length``; none for layers without one."""
    if rope is None:
        return _unturned
    rotary, device = decoder.rotaries[rope], decoder.device
    if isinstance(positions, range):
        phases = rotary.phases(positions.start, positions.stop, length, device)
    else:
        phases = rotary.at(positions, length)
    return Rotation(phases, decoder.dtype)


def _unturned(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class _Sight:
    """How the layers of one kind see in one run: rotation of queries and keys; that of queries
    for the sinks and the mask, where not everything before is seen; and where the keys lie."""

    turn: Turn
    reach: Reach
    plain: bool
    capped: Turn | None = None
    mask: Tensor | None = None
    window: slice | None = None


def _sights(decoder: Decoder, look: Callable[[LayerKind], _Sight]) -> list[_Sight]:
    """One for each layer, made once for each kind of them."""
    kinds = decoder.config.layer_kinds
    made = {kind: look(kind) for kind in set(kinds)}
    return [made[kind] for kind in kinds]


def _attending(decoder: Decoder, look: Look, beside: Beside | None) -> Attend:
    """Attention that looks as ``look`` does, with the part of a far memory beside it."""

    def attend(layer: int, a: Tensor) -> Tensor:
        qk, v = decoder.layers[layer].projected(a)
        attended = look(layer, qk, v)
        return attended if beside is None else beside(layer, a, qk, v, attended)

    return attend


def over_sequence(decoder: Decoder, reach: Reach, count: int, beside: Beside | None) -> Attend:
    heads, softmax = decoder.heads, Softmax.of(decoder.config)
    length, positions = reach.length(count), range(count)

    def sight_of(kind: LayerKind) -> _Sight:
        own = reach.of(kind)
        turn = rotation(decoder, kind.rope, positions, length)
        if own.plain(count):
            return _Sight(turn, own, True)
        seen = torch.arange(count, device=decoder.device)
        capped = to_sinks(decoder, own, kind.rope, positions, length)
        return _Sight(turn, own, False, capped, visible(own, 0, count, seen))

    sights = _sights(decoder, sight_of)

    def look(layer: int, qk: Tensor, v: Tensor) -> Tensor:
        sight = sights[layer]
        rotated = sight.turn(qk)
        q, k = rotated[:, :heads], rotated[:, heads:].transpose(0, 1)
        v = v.transpose(0, 1)
        if sight.capped is None or sight.mask is None:
            return softmax.over(q, k, v, sight.mask, causal=sight.plain)
        return softmax.two_part(q, sight.capped(qk[:, :heads]), k, v, sight.mask, sight.reach.sinks)

    return _attending(decoder, look, beside)


def over_cache(
    decoder: Decoder,
    reach: Reach,
    cache: LiveCache,
    start: int,
    count: int,
    length: int,
    beside: Beside | None,
) -> Attend:
    heads, softmax = decoder.heads, Softmax.of(decoder.config)
    stop, last_layer = start + count, decoder.config.num_layers - 1
    positions = range(start, stop)

    def sight_of(kind: LayerKind) -> _Sight:
        own, device = reach.of(kind), decoder.device
        turn = rotation(decoder, kind.rope, positions, length)
        if own.plain(stop):
            seen = torch.arange(stop, device=device)
            mask = visible(own, start, stop, seen) if count > 1 and start > 0 else None
            return _Sight(turn, own, True, mask=mask, window=cache.span(0, stop))
        first = max(start - cast(int, own.window) + 1, own.sinks)
        seen = torch.arange(first, stop, device=device)
        if own.sinks:
            seen = torch.cat((torch.arange(own.sinks, device=device), seen))
        mask = visible(own, start, stop, seen)
        capped = to_sinks(decoder, own, kind.rope, positions, length)
        return _Sight(turn, own, False, capped, mask, cache.span(first, stop))

    sights = _sights(decoder, sight_of)

    def look(layer: int, qk: Tensor, v: Tensor) -> Tensor:
        sight = sights[layer]
        rotated = sight.turn(qk)
        cache.write(layer, start, rotated[:, heads:], v)
        keys, values = cache.keys[layer], cache.values[layer]
        window = cast(slice, sight.window)
        q, mask = rotated[:, :heads], sight.mask
        if layer == last_layer and sight.plain:  # nothing but the last position is asked for
            return softmax.over(q[-1:], keys[:, window], values[:, window], None, causal=False)
        if sight.capped is None or mask is None:
            causal = sight.plain and start == 0 and count > 1
            return softmax.over(q, keys[:, window], values[:, window], mask, causal)
        sinks = slice(0, sight.reach.sinks)
        k = torch.cat((keys[:, sinks], keys[:, window]), 1)
        v = torch.cat((values[:, sinks], values[:, window]), 1)
        return softmax.two_part(q, sight.capped(qk[:, :heads]), k, v, mask, sight.reach.sinks)

    return _attending(decoder, look, beside)


def seen_from(
    decoder: Decoder, reach: Reach, cache: LiveCache, kind: LayerKind, at: int, length: int
) -> Sight:
    """What layers of this kind see from the one position ``at``."""
    own, phases = reach.of(kind), _phases(decoder, kind, at, length)
    if own.plain(at + 1):
        return Sight(phases, 0, cache.span(0, at + 1).stop)
    rows = cache.span(max(at - cast(int, own.window) + 1, own.sinks), at + 1)
    capped = _phases(decoder, kind, cast(int, own.size) - 1, length) if own.sinks else None
    return Sight(phases, rows.start, rows.stop, own.sinks, capped)


def seen_within(decoder: Decoder, kind: LayerKind, at: int, length: int) -> Sight:
    """Likewise where nothing but a window of the kind's own hides a position before."""
    first = 0 if kind.window is None else max(0, at + 1 - kind.window)
    return Sight(_phases(decoder, kind, at, length), first, at + 1)


def _phases(decoder: Decoder, kind: LayerKind, position: int, length: int) -> Tensor | None:
    if kind.rope is None:
        return None
    return decoder.rotaries[kind.rope].phases(position, position + 1, length, "cpu")[0]


def to_sinks(
    decoder: Decoder, reach: Reach, rope: RopeConfig | None, positions: range, length: int
) -> Turn | None:
    """The rotation by which queries meet the sinks, where there are any."""
    if not reach.sinks:
        return None
    at = torch.arange(positions.start, positions.stop, device=decoder.device)
    return rotation(decoder, rope, at.clamp(max=cast(int, reach.size) - 1), length)


def visible(reach: Reach, start: int, stop: int, seen: Tensor) -> Tensor:
    """(T, len(seen)) bool: may queries start..stop-1 attend to the positions ``seen``?"""
    queries = torch.arange(start, stop, device=seen.device)[:, None]
    allowed = seen <= queries
    if reach.window is not None:
        allowed &= (seen < reach.sinks) | (seen > queries - reach.window)
    return allowed
