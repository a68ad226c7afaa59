"""Windowed attention with sinks (design section 3), and full causal attention beside it.

What lies before the window reaches the logits by way of the decoder's far memory, where it has one:
resident tokens, then live ones that the window has left behind.

Position i attends to the first ``sinks`` positions and to the last ``window`` ones, itself
included, in one softmax. Keys are rotated at their own positions; a query meets the window
rotated at i, and the sinks rotated at min(i, sinks + window - 1), so that no distance exceeds
the size of the cache. Up to that position both rotations are the same and attention is plainly
causal. A layer with a window of its own, in families that have such, sees that window and no sinks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from nazx_cli.context.context import Context, Memory
from nazx_cli.context.live_cache import LiveCache
from nazx_cli.errors import NazxError
from nazx_cli.families.base import LayerKind
from nazx_cli.families.rope import RopeConfig
from nazx_cli.kernels.native.step import Sight, Step
from nazx_cli.kernels.rotary import Rotation
from nazx_cli.model.attention.base import AttentionKind
from nazx_cli.model.attention.softmax import Softmax
from nazx_cli.model.decoder import Attend, Decoder
from nazx_cli.model.one_position import OnePosition

Turn = Callable[[Tensor], Tensor]
"""x (T, heads, D) rotated to the positions of its rows."""

_CHUNK = 512  # positions run at a time once some of them are past the window


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


class Windowed(AttentionKind):
    """Sinks and a sliding window over the live tokens; resident tokens are for the far memory."""

    name = "windowed"
    layouts = ("cached",)

    @property
    def reads_resident(self) -> bool:
        return self.decoder.far is not None

    @cached_property
    def reach(self) -> Reach:
        """Which live positions a query sees."""
        attention = self.decoder.config.attention
        return Reach(attention.local_window, attention.sink_tokens)

    @cached_property
    def _one_position(self) -> OnePosition:
        return OnePosition(self.decoder)

    def new_memory(self, layout: str) -> Memory:
        d, reach = self.decoder, self.reach
        return LiveCache(d.config, d.dtype, d.device, reach.window, reach.sinks)

    def live(self, context: Context) -> Tensor:
        """(n,) int32: the tokens of ``context`` that run through the layers."""
        return context.tokens.live()

    def sequence(self, ids: Tensor) -> Tensor:
        h = self.decoder.embed(ids)
        attend = _over_sequence(self.decoder, self.reach, len(ids))
        return self.decoder.hidden(h, attend)

    def run(self, context: Context, drafts: Sequence[int]) -> Tensor:
        live = self.live(context)
        if not len(live):
            raise NazxError(
                "the context holds documents but no conversation",
                "append at least one token that is not resident",
            )
        cache = cast(LiveCache, context.memory)
        before, start = cache.count, cache.match(live)
        if not self._turns_alike(before, len(live)):
            cache.clear()
            start = 0
        step = self._one_position.step() if start == len(live) - 1 else None
        if step is not None:
            out, h = self._run_ahead(step, cache, live[start:], drafts)
            return self._remembered(context, out, h, drafts)
        h = torch.empty(0)
        while start < len(live):
            stop = len(live)
            if not self._at_once(stop):
                stop = min(stop, start + min(_CHUNK, cache.slack))
            h = self._run(cache, live[start:stop], start, self.reach.length(len(live)))
            start = stop
        return self._remembered(context, self.decoder.logits(h[-1:]), h[-1:], ())

    def logits(self, ids: Tensor, before: Tensor | None = None) -> Tensor:
        if before is not None and self.reach.window is None:
            return super().logits(ids, before)
        if not len(ids):
            return super().logits(ids)
        ids = ids.to(self.decoder.device, torch.int64)
        h = self.sequence(ids)
        out, far = self.decoder.logits(h), self.decoder.far
        if far is None or self.reach.window is None:
            return out
        begin = ids[:0] if before is None else before.to(ids)
        states, grams, every = self.decoder.final_norm(h), far.grams(ids), torch.cat((begin, ids))
        inside = min(len(ids), self.reach.window)  # positions from which nothing has been left
        for rows in (slice(inside), *(slice(at, at + 1) for at in range(inside, len(ids)))):
            known = every[: len(begin) + max(0, rows.stop - self.reach.window)]
            out[rows] = far.mix(out[rows], states[rows], grams[rows], known)
        return out

    def _remembered(
        self, context: Context, out: Tensor, h: Tensor, drafts: Sequence[int]
    ) -> Tensor:
        """Logits ``out`` (n, V) of final states ``h`` (n, C), at the end of ``context`` and after
        each of ``drafts``, as the far memory leaves them; a row as if it were alone."""
        far, window = self.decoder.far, self.reach.window
        if far is None or window is None:
            return out
        states, tokens = self.decoder.final_norm(h), context.tokens
        drafted = torch.tensor(drafts[: len(out) - 1], dtype=torch.int32)
        end = torch.cat((tokens.live(max(0, tokens.live_count - far.window)), drafted))
        grams = far.grams(end.to(out.device))[len(end) - len(out) :]
        rows = []
        for at in range(len(out)):
            before = tokens.resident()
            if (left := tokens.live_count + at - window) > 0:
                before = torch.cat((before, tokens.live()[:left]))
            row = slice(at, at + 1)
            rows.append(far.mix(out[row], states[row], grams[row], before))
        return torch.cat(rows)

    def _turns_alike(self, count: int, other: int) -> bool:
        """Whether positions of sequences of both lengths are rotated by the same frequencies."""
        lengths = self.reach.length(count), self.reach.length(other)
        return all(rotary.same_frequencies(*lengths) for rotary in self.decoder.rotaries.values())

    def _at_once(self, stop: int) -> bool:
        """Whether positions before ``stop`` need no matrix of scores that is held whole."""
        config = self.decoder.config
        reaches = (self.reach.of(kind) for kind in set(config.layer_kinds))
        return config.attention_cap is None and all(reach.plain(stop) for reach in reaches)

    def _run(self, cache: LiveCache, ids: Tensor, start: int, length: int) -> Tensor:
        """Run positions start.. through the layers, adding their rows to the cache."""
        cache.reserve(len(ids))
        attend = _over_cache(self.decoder, self.reach, cache, start, len(ids), length)
        h = self.decoder.hidden(self.decoder.embed(ids.to(self.decoder.device)), attend)
        cache.commit(ids)
        return h

    def _run_ahead(
        self, step: Step, cache: LiveCache, last: Tensor, drafts: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """(1 + n, V): logits after the last position, and after n drafts that there is room for:
        none is worth a cache that grows. And (1 + n, C): the final states."""
        start = cache.count
        cache.reserve(1)
        count = min(1 + len(drafts), cache.room)
        while not self._turns_alike(start + 1, start + count):
            count -= 1
        ids = torch.cat((last, torch.tensor(drafts[: count - 1], dtype=last.dtype)))
        sights = [
            _from(self.decoder, self.reach, cache, kind, at, self.reach.length(at + 1))
            for at in range(start, start + count)
            for kind in self._one_position.kinds
        ]
        at, states = cache.span(0, start).stop, self.decoder.embed(ids)
        rows, final = step.run(states, cache.keys, cache.values, at, sights)
        cache.commit(ids)
        logits = torch.stack([self.decoder.scaled(row) for row in rows])  # one by one: as if alone
        return logits, final


class Full(Windowed):
    """Plain causal attention over every token of the context, resident or live."""

    name = "full"

    @cached_property
    def reach(self) -> Reach:
        """All positions before the query's."""
        return Reach(None, 0)

    def live(self, context: Context) -> Tensor:
        return context.tokens.slice(0, len(context)).clone()


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


def _over_sequence(decoder: Decoder, reach: Reach, count: int) -> Attend:
    heads, softmax = decoder.config.num_heads, Softmax.of(decoder.config)
    length, positions = reach.length(count), range(count)

    def look(kind: LayerKind) -> _Sight:
        own = reach.of(kind)
        turn = rotation(decoder, kind.rope, positions, length)
        if own.plain(count):
            return _Sight(turn, own, True)
        seen = torch.arange(count, device=decoder.device)
        capped = _capped(decoder, own, kind.rope, positions, length)
        return _Sight(turn, own, False, capped, _mask(own, 0, count, seen))

    sights = _sights(decoder, look)

    def attend(layer: int, a: Tensor) -> Tensor:
        sight = sights[layer]
        qk, v = decoder.layers[layer].projected(a)
        rotated = sight.turn(qk)
        q, k = rotated[:, :heads], rotated[:, heads:].transpose(0, 1)
        v = v.transpose(0, 1)
        if sight.capped is None or sight.mask is None:
            return softmax.over(q, k, v, sight.mask, causal=sight.plain)
        return softmax.two_part(q, sight.capped(qk[:, :heads]), k, v, sight.mask, sight.reach.sinks)

    return attend


def _over_cache(
    decoder: Decoder, reach: Reach, cache: LiveCache, start: int, count: int, length: int
) -> Attend:
    heads, softmax = decoder.config.num_heads, Softmax.of(decoder.config)
    stop, last_layer = start + count, decoder.config.num_layers - 1
    positions = range(start, stop)

    def look(kind: LayerKind) -> _Sight:
        own, device = reach.of(kind), decoder.device
        turn = rotation(decoder, kind.rope, positions, length)
        if own.plain(stop):
            seen = torch.arange(stop, device=device)
            mask = _mask(own, start, stop, seen) if count > 1 and start > 0 else None
            return _Sight(turn, own, True, mask=mask, window=cache.span(0, stop))
        first = max(start - cast(int, own.window) + 1, own.sinks)
        seen = torch.arange(first, stop, device=device)
        if own.sinks:
            seen = torch.cat((torch.arange(own.sinks, device=device), seen))
        mask = _mask(own, start, stop, seen)
        capped = _capped(decoder, own, kind.rope, positions, length)
        return _Sight(turn, own, False, capped, mask, cache.span(first, stop))

    sights = _sights(decoder, look)

    def attend(layer: int, a: Tensor) -> Tensor:
        sight = sights[layer]
        qk, v = decoder.layers[layer].projected(a)
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

    return attend


def _from(
    decoder: Decoder, reach: Reach, cache: LiveCache, kind: LayerKind, at: int, length: int
) -> Sight:
    """What layers of this kind see from the one position ``at``."""

    def phases(position: int) -> Tensor | None:
        if kind.rope is None:
            return None
        return decoder.rotaries[kind.rope].phases(position, position + 1, length, "cpu")[0]

    own = reach.of(kind)
    if own.plain(at + 1):
        return Sight(phases(at), 0, cache.span(0, at + 1).stop)
    rows = cache.span(max(at - cast(int, own.window) + 1, own.sinks), at + 1)
    capped = phases(cast(int, own.size) - 1) if own.sinks else None
    return Sight(phases(at), rows.start, rows.stop, own.sinks, capped)


def _capped(
    decoder: Decoder, reach: Reach, rope: RopeConfig | None, positions: range, length: int
) -> Turn | None:
    """The rotation by which queries meet the sinks, where there are any."""
    if not reach.sinks:
        return None
    at = torch.arange(positions.start, positions.stop, device=decoder.device)
    return rotation(decoder, rope, at.clamp(max=cast(int, reach.size) - 1), length)


def _mask(reach: Reach, start: int, stop: int, seen: Tensor) -> Tensor:
    """(T, len(seen)) bool: may queries start..stop-1 attend to the positions ``seen``?"""
    queries = torch.arange(start, stop, device=seen.device)[:, None]
    allowed = seen <= queries
    if reach.window is not None:
        allowed &= (seen < reach.sinks) | (seen > queries - reach.window)
    return allowed
