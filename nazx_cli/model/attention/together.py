"""Windowed and full attention of several processes: all run the same live tokens, of which the
first one tells the others.

How they share the work is up to the kind: by heads, where weights are split (here), or by positions
(``star``).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from nazx_cli.context.context import Context, Memory
from nazx_cli.context.live_cache import LiveCache
from nazx_cli.context.ranks.live import Told
from nazx_cli.model.attention.base import Followed
from nazx_cli.model.attention.windowed import Full, Windowed
from nazx_cli.model.decoder import Decoder
from nazx_cli.ranks import Group


class Together(Windowed):
    """Attention whose contexts each rank of ``group`` holds a part of."""

    def __init__(self, decoder: Decoder, group: Group) -> None:
        super().__init__(decoder)
        self.ranks = group
        self._told: WeakKeyDictionary[LiveCache, Told] = WeakKeyDictionary()

    @abstractmethod
    def part(self) -> LiveCache:
        """An empty cache for what this rank holds of a context."""

    def new_memory(self, layout: str) -> Memory:
        cache = self.part()
        if self.ranks.leads:
            self._told[cache] = Told(self.ranks, cache)
        return cache

    def run(self, context: Context, drafts: Sequence[int]) -> Tensor:
        live, cache = self.asked(context), cast(LiveCache, context.memory)
        with self.ranks.together():
            self._told[cache].tell(live)
            h = self.caught_up(cache, live, self.matched(cache, live))
            return self.decoder.logits(h)

    def follow(self, numbers: Sequence[int], contexts: dict[int, Followed], group: Group) -> None:
        _, number, kept, new, *_ = numbers
        if number not in contexts:
            contexts[number] = Context(self.new_memory(""), self.decoder.config.vocab_size)
        context = cast(Context, contexts[number])
        context.delete(kept, len(context))
        context.append(group.receive((new,), torch.int32))
        live, cache = self.asked(context), cast(LiveCache, context.memory)
        with self.decoder.without_gradients():
            h = self.caught_up(cache, live, self.matched(cache, live))
            if self.decoder.is_split:  # it has a part of the head, too
                self.decoder.logits(h)


class SplitWindowed(Together):
    """Of a decoder of which each rank has some heads: those of all positions."""

    def part(self) -> LiveCache:
        return self.own_cache()


class SplitFull(SplitWindowed, Full):
    """The same for full attention."""
