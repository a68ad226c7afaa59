"""Windowed attention with sinks (design section 3), and full causal attention beside it.

What lies before the window reaches the logits by way of the decoder's far memory, where it has one:
resident tokens, then live ones that the window has left behind. A memory that reads far text reads
resident tokens, whenever they are others than those that it has read.

Position i attends to the first ``sinks`` positions and to the last ``window`` ones, itself
included, in one softmax. Keys are rotated at their own positions; a query meets the window
rotated at i, and the sinks rotated at min(i, sinks + window - 1), so that no distance exceeds
the size of the cache. Up to that position both rotations are the same and attention is plainly
causal. A layer with a window of its own, in families that have such, sees that window and no sinks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from nazx_cli.context.context import Context, Memory
from nazx_cli.context.live_cache import LiveCache
from nazx_cli.errors import NazxError
from nazx_cli.kernels.native.step import Step
from nazx_cli.model.attention.base import AttentionKind
from nazx_cli.model.attention.sights import Reach, over_cache, over_sequence, seen_from
from nazx_cli.model.far.base import Beside
from nazx_cli.model.far.states import FarStates
from nazx_cli.model.one_position import OnePosition
from nazx_cli.model.weights import Weights

_CHUNK = 512  # positions run at a time where attention needs a row of each


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

    @property
    def runs_ahead(self) -> bool:
        return self._one_position.made() is not None

    @cached_property
    def _weights(self) -> Weights:
        return Weights(self.decoder)

    def new_memory(self, layout: str) -> Memory:
        return self.own_cache()

    def own_cache(self) -> LiveCache:
        """An empty cache for all positions that are needed, of the heads that this process has."""
        d, reach = self.decoder, self.reach
        return LiveCache(d.config, d.kv_heads, d.dtype, d.device, reach.window, reach.sinks)

    def live(self, context: Context) -> Tensor:
        """(n,) int32: the tokens of ``context`` that run through the layers."""
        return context.tokens.live()

    def sequence(self, ids: Tensor, beside: Beside | None = None) -> Tensor:
        """Likewise, with the part that a far memory has in the layers."""
        h = self.decoder.embed(ids)
        attend = over_sequence(self.decoder, self.reach, len(ids), beside)
        return self.decoder.hidden(h, attend)

    def read(self, context: Context) -> Iterator[tuple[int, int]]:
        cache, resident = cast(LiveCache, context.memory), context.tokens.resident()
        if cache.far_name != self._far_name(resident):
            for done in self._read(resident):
                yield done, len(resident)

    def readings(self, ids: Tensor) -> Mapping[str, Tensor]:
        return {} if self._states is None else self._states.of(ids, self._weights.digest)

    @property
    def _states(self) -> FarStates | None:
        """What the far memory has read, where it is one that reads."""
        return None if self.decoder.far is None else self.decoder.far.states

    def _read(self, ids: Tensor) -> Iterator[int]:
        """Have the far memory read ids (N,); yields how many it has, before each segment."""
        memory, states = self.decoder.far, self._states
        if memory is None or states is None:
            return

        def run(segment: Tensor, state: Tensor | None) -> Tensor:
            reading = memory.reading(state)
            with torch.no_grad():  # here, for whoever takes what is yielded may want gradients
                self.sequence(segment.to(self.decoder.device, torch.int64), reading)
            return reading.after

        yield from states.read(ids, self._weights.digest, run)

    def _far_name(self, ids: Tensor) -> str:
        """Names the far memory that has read ids (N,), as no other."""
        memory, states = self.decoder.far, self._states
        read = states.name(ids, self._weights.digest) if states is not None else ""
        return f"{memory.name} {read}" if memory is not None else ""

    def _far_state(self, ids: Tensor) -> Tensor | None:
        """What the far memory holds of ids (N,), which it reads if it has not."""
        for _ in self._read(ids):
            pass
        states = self._states
        return None if states is None else states.get(states.name(ids, self._weights.digest))

    def _bound(self, context: Context) -> Beside | None:
        """The far memory's part in the layers for ``context``, whose cache is then of no other."""
        cache, memory = cast(LiveCache, context.memory), self.decoder.far
        weights = b"" if self._states is None else self._weights.digest
        seen = (context.tokens.resident_edits, "" if memory is None else memory.name, weights)
        if cache.far_seen != seen:  # text that is the same is not hashed for every token
            resident = context.tokens.resident()
            name = self._far_name(resident)
            if cache.far_name != name:
                cache.bind(name, self._far_state(resident))
            cache.far_seen = seen
        return None if memory is None else memory.beside(cache.far_state)

    def run(self, context: Context, drafts: Sequence[int]) -> Tensor:
        live, cache = self.asked(context), cast(LiveCache, context.memory)
        beside, start = self._bound(context), self.matched(cache, live)
        alone = start == len(live) - 1 and beside is None  # compiled layers know of no memory
        step = self._one_position.step() if alone else None
        if step is not None:
            out, h = self._run_ahead(step, cache, live[start:], drafts)
            return self._remembered(context, out, h, drafts)
        h = self.caught_up(cache, live, start, beside)
        return self._remembered(context, self.decoder.logits(h), h, ())

    def logits(self, ids: Tensor, before: Tensor | None = None) -> Tensor:
        if before is not None and self.reach.window is None:
            return super().logits(ids, before)
        if not len(ids):
            return super().logits(ids)
        ids, far = ids.to(self.decoder.device, torch.int64), self.decoder.far
        begin = ids[:0] if before is None else before.to(ids)
        state = self._far_state(begin.to("cpu", torch.int32))
        h = self.sequence(ids, None if far is None else far.beside(state))
        out = self.decoder.logits(h)
        if far is None or self.reach.window is None:
            return out
        states, grams, every = self.decoder.final_norm(h), far.grams(ids), torch.cat((begin, ids))
        inside = min(len(ids), self.reach.window)  # positions from which nothing has been left
        for rows in (slice(inside), *(slice(at, at + 1) for at in range(inside, len(ids)))):
            known = every[: len(begin) + max(0, rows.stop - self.reach.window)]
            out[rows] = far.mix(out[rows], states[rows], grams[rows], known)
        return out

    def asked(self, context: Context) -> Tensor:
        """``live``, of which there has to be some."""
        live = self.live(context)
        if not len(live):
            raise NazxError(
                "the context holds documents but no conversation",
                "append at least one token that is not resident",
            )
        return live

    def matched(self, cache: LiveCache, live: Tensor) -> int:
        """How many of ``live`` (n,) the cache still holds, no more than n - 1."""
        before, start = cache.count, cache.match(live)
        if self._turns_alike(before, len(live)):
            return start
        cache.clear()
        return 0

    def caught_up(
        self, cache: LiveCache, live: Tensor, start: int, beside: Beside | None = None
    ) -> Tensor:
        """Run the positions from ``start`` on; (1, C): the final state of the last one."""
        h, length = torch.empty(0), self.reach.length(len(live))
        while start < len(live):
            stop = len(live)
            if start or not self._at_once(stop):
                stop = min(stop, start + min(_CHUNK, cache.slack))
            h = self.run_rows(cache, live[start:stop], start, length, beside)
            start = stop
        return h[-1:]

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
        """Whether positions before ``stop``, all of them, need no matrix that is held whole: of
        scores, or of which sees which."""
        config = self.decoder.config
        reaches = (self.reach.of(kind) for kind in set(config.layer_kinds))
        return config.attention_cap is None and all(reach.plain(stop) for reach in reaches)

    def run_rows(
        self, cache: LiveCache, ids: Tensor, start: int, length: int, beside: Beside | None = None
    ) -> Tensor:
        """Run positions start.. through the layers, adding their rows to the cache."""
        cache.reserve(len(ids))
        attend = over_cache(self.decoder, self.reach, cache, start, len(ids), length, beside)
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
            seen_from(self.decoder, self.reach, cache, kind, at, self.reach.length(at + 1))
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
