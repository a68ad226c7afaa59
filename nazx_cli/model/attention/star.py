"""Star Attention over several processes (``context.ranks.sharing``): each runs some of a long
prompt's blocks, and holds their keys and values.

A rank that does not hold the anchor computes it for the time of its blocks. What asks runs on all
ranks: in each layer every rank attends to what it holds, and one gathering merges numerators and
denominators as in ``context.ranks.ranked``. So with one block, and for what follows, attention is
exact. Windowed models read blocks as far as the window takes all live tokens, and ask beyond.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from nazx_cli.context.live_cache import LiveCache
from nazx_cli.context.ranks.live import SharedCache
from nazx_cli.context.ranks.sharing import anchor, cut
from nazx_cli.kernels.base import Attended, merged
from nazx_cli.model.attention.sights import rotation, to_sinks, visible
from nazx_cli.model.attention.softmax import Softmax
from nazx_cli.model.attention.together import Together
from nazx_cli.model.attention.windowed import Full
from nazx_cli.model.decoder import Attend, Decoder
from nazx_cli.model.far.base import Beside
from nazx_cli.ranks import Group

_CHUNK = 512  # positions that ask at a time past the window


class StarWindowed(Together):
    """Windowed attention whose prompts are read in blocks of ``block`` positions."""

    def __init__(self, decoder: Decoder, group: Group, block: int) -> None:
        super().__init__(decoder, group)
        self.block = block

    def part(self) -> LiveCache:
        d = self.decoder
        return SharedCache(d.config, d.dtype, d.device, self.ranks)

    def caught_up(
        self, cache: LiveCache, live: Tensor, start: int, beside: Beside | None = None
    ) -> Tensor:
        shared, stop = cast(SharedCache, cache), len(live)
        length = self.reach.length(stop)
        if self.reach.plain(stop):
            *blocks, last = cut(start, stop, self.block)
            self._read_blocks(shared, live, blocks, length)
            return self._ask(shared, live[last[0] :], last[0], length)
        h = torch.empty(0)
        for at in range(start, stop, _CHUNK):
            h = self._ask(shared, live[at : at + _CHUNK], at, length)
        return h

    def _read_blocks(
        self, cache: SharedCache, live: Tensor, blocks: list[tuple[int, int]], length: int
    ) -> None:
        """Run this rank's of ``blocks``, and note all of them."""
        mine = [each for each in blocks if cache.assign(*each)]
        if mine:
            before = self._anchor(cache, live[: anchor(mine[-1][0], self.block)], length)
            for start, stop in mine:
                attend = self._over_block(cache, before, start, stop, length)
                ids = live[start:stop].to(self.decoder.device)
                self.decoder.hidden(self.decoder.embed(ids), attend)
        if blocks:
            cache.commit(live[blocks[0][0] : blocks[-1][1]])

    def _anchor(self, cache: SharedCache, ids: Tensor, length: int) -> LiveCache:
        """What holds keys and values of the first positions, of ``ids`` (a,), in its first rows."""
        if cache.span(0, len(ids)).stop == len(ids):
            return cache
        found = self.own_cache()
        self.run_rows(found, ids, 0, length)
        return found

    def _over_block(
        self, cache: SharedCache, before: LiveCache, start: int, stop: int, length: int
    ) -> Attend:
        first, count, device = anchor(start, self.block), stop - start, self.decoder.device
        mask = torch.ones(count, first + count, dtype=torch.bool, device=device).tril(first)
        own, softmax = cache.span(start, stop), Softmax.of(self.decoder.config)

        def attended(layer: int, q: Tensor, _: Tensor) -> Tensor:
            k, v = (
                torch.cat((theirs[layer, :, :first], mine[layer, :, own]), 1)
                for theirs, mine in ((before.keys, cache.keys), (before.values, cache.values))
            )
            return softmax.over(q, k, v, mask[-len(q) :], causal=False)

        return self._keeping(cache, range(start, stop), length, attended, keeps=True)

    def _ask(self, cache: SharedCache, ids: Tensor, start: int, length: int) -> Tensor:
        """Run positions that see all before them; (1, C): the last one's final state."""
        stop, reach = start + len(ids), self.reach
        keeps = cache.assign(start, stop, ahead=self.block // 4)
        held, softmax = cache.own(stop).to(self.decoder.device), Softmax.of(self.decoder.config)
        mask = visible(reach, start, stop, held)
        sinks = 0 if reach.plain(stop) else int((held < reach.sinks).sum())

        def attended(layer: int, q: Tensor, q_capped: Tensor) -> Tensor:
            own = Attended(torch.zeros_like(q).float(), q.new_full(q.shape[:2], -torch.inf).float())
            if len(held):
                k, v = cache.keys[layer, :, : len(held)], cache.values[layer, :, : len(held)]
                own = softmax.part(q, q_capped, k, v, mask[-len(q) :], sinks)
            every = self.ranks.gather(torch.cat((own.values, own.lse.unsqueeze(-1)), -1))
            return merged(every[..., :-1], every[..., -1]).values.to(q.dtype).flatten(1)

        attend = self._keeping(cache, range(start, stop), length, attended, keeps=keeps)
        h = self.decoder.hidden(self.decoder.embed(ids.to(self.decoder.device)), attend)
        cache.commit(ids)
        return h[-1:]

    def _keeping(
        self,
        cache: SharedCache,
        positions: range,
        length: int,
        attended: Callable[[int, Tensor, Tensor], Tensor],
        *,
        keeps: bool,
    ) -> Attend:
        """Attention by ``attended`` (layer, queries, those for the sinks), each (T, heads, D), of
        which the last layer has but the last one; with ``keeps`` keys and values go to the cache.
        """
        decoder, kinds = self.decoder, self.decoder.config.layer_kinds
        turns = {kind: rotation(decoder, kind.rope, positions, length) for kind in set(kinds)}
        far = not self.reach.plain(positions.stop)
        caps = {
            kind: to_sinks(decoder, self.reach, kind.rope, positions, length) if far else None
            for kind in turns
        }

        def attend(layer: int, a: Tensor) -> Tensor:
            qk, v = decoder.layers[layer].projected(a)
            rotated, heads = turns[kinds[layer]](qk), decoder.heads
            if keeps:
                cache.write(layer, positions.start, rotated[:, heads:], v)
            last = slice(-1, None) if layer == len(kinds) - 1 else slice(None)
            q, cap = rotated[last, :heads], caps[kinds[layer]]
            return attended(layer, q, q if cap is None else cap(qk[:, :heads])[last])

        return attend


class StarFull(StarWindowed, Full):
    """The same for full attention."""
