"""Live tokens that several processes have together: what the others know of a context, and which
of them holds the keys and values of which positions."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.context.live_cache import LiveCache, same_beginning
from nazx_cli.ranks import Group, Kind


class Told:
    """Of the first rank: what the others know of a context, as long as ``memory`` lasts."""

    def __init__(self, group: Group, memory: object) -> None:
        self._group = group
        self._number = next(group.numbers)
        self._ids = torch.empty(0, dtype=torch.int32)
        weakref.finalize(memory, group.dropped.append, self._number)

    def tell(self, live: Tensor) -> None:
        """Have the others run along until all of ``live`` (n,) int32 is computed."""
        self._group.tell_dropped()
        kept = same_beginning(self._ids, live)
        new = live[kept:]
        for rank in self._group.others:
            self._group.send(rank, (Kind.RUN, self._number, kept, len(new)), new)
        self._ids = live


class SharedCache(LiveCache):
    """This rank's rows of the keys and values of a context of which all ranks hold some.

    All ranks decide alike who holds what: ``assign`` is called by all of them, in the same order.
    ``ids`` and ``count`` are about all positions.
    """

    def __init__(
        self, config: ModelConfig, dtype: torch.dtype, device: torch.device, group: Group
    ) -> None:
        super().__init__(config, config.num_kv_heads, dtype, device, None, 0)
        self._rank, self._ranks = group.rank, group.size
        self._runs: list[tuple[int, int, int]] = []  # (start, stop, rank), without gaps

    def assign(self, start: int, stop: int, ahead: int = 0) -> bool:
        """Give positions start..stop-1, which follow those that are given, to the rank that holds
        least, or to that of the last ones if it is no more than ``ahead`` beyond that then; True
        where it is this one, which then has room for them."""
        held = [0] * self._ranks
        for a, b, owner in self._runs:
            held[owner] += b - a
        rank = held.index(min(held))
        if self._runs and held[self._runs[-1][2]] + stop - start <= held[rank] + ahead:
            first, _, rank = self._runs.pop()  # an answer's tokens make no run each
            self._runs.append((first, stop, rank))
        else:
            self._runs.append((start, stop, rank))
        if rank == self._rank:
            self.reserve(stop - start)
        return rank == self._rank

    def own(self, stop: int) -> Tensor:
        """(n,) int64: positions before ``stop`` that this rank holds, in the order of its rows."""
        mine = [torch.arange(a, min(b, stop)) for a, b, owner in self._runs if owner == self._rank]
        return torch.cat([each for each in mine if len(each)] or [torch.empty(0, dtype=torch.long)])

    def clear(self) -> None:
        super().clear()
        self._runs = []

    def reserve(self, more: int) -> None:
        used = self._index(self._runs[-1][1]) - more
        if used + more > self.keys.shape[2]:
            self._grow(used, used + more)

    def _index(self, position: int) -> int:
        return sum(
            min(b, position) - a
            for a, b, owner in self._runs
            if owner == self._rank and a < position
        )

    def _truncate(self, count: int) -> None:
        self.ids = self.ids[:count]
        self._runs = [(a, min(b, count), owner) for a, b, owner in self._runs if a < count]
