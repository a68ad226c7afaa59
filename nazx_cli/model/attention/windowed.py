"""Windowed attention with sinks (design section 3), and full causal attention beside it.

Position i attends to the first ``sinks`` positions and to the last ``window`` ones, itself
included, in one softmax. Keys are rotated at their own positions; a query meets the window
rotated at i, and the sinks rotated at min(i, sinks + window - 1), so that no distance exceeds
the size of the cache. Up to that position both rotations are the same and attention is plainly
causal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from nazx_cli.context.context import Context, Memory
from nazx_cli.context.live_cache import LiveCache
from nazx_cli.errors import NazxError
from nazx_cli.kernels.rotary import Rotation
from nazx_cli.model.attention.base import AttentionKind
from nazx_cli.model.decoder import Attend, Decoder

_STEP = 64  # of lengths in attention in 16 bits
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

    def length(self, count: int) -> int:
        """The sequence length that length-dependent RoPE types are told."""
        return count if self.size is None else min(count, self.size)


class Windowed(AttentionKind):
    """Sinks and a sliding window over the live tokens; resident tokens are not attended."""

    name = "windowed"
    layouts = ("cached",)

    @cached_property
    def reach(self) -> Reach:
        """Which live positions a query sees."""
        attention = self.decoder.config.attention
        return Reach(attention.local_window, attention.sink_tokens)

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

    def next_state(self, context: Context) -> Tensor:
        live = self.live(context)
        if not len(live):
            raise NazxError(
                "the context holds documents but no conversation",
                "append at least one token that is not resident",
            )
        cache = cast(LiveCache, context.memory)
        rotary = self.decoder.rotary
        before, length = cache.count, self.reach.length(len(live))
        start = cache.match(live)
        if not rotary.same_frequencies(self.reach.length(before), length):
            cache.clear()
            start = 0
        h = torch.empty(0)
        while start < len(live):
            stop = len(live)
            if not self.reach.plain(stop):
                stop = min(stop, start + min(_CHUNK, cache.slack))
            h = self._run(cache, live[start:stop], start, length)
            start = stop
        return h[-1:]

    def _run(self, cache: LiveCache, ids: Tensor, start: int, length: int) -> Tensor:
        """Run positions start.. through the layers, adding their rows to the cache."""
        cache.reserve(len(ids))
        attend = _over_cache(self.decoder, self.reach, cache, start, len(ids), length)
        h = self.decoder.hidden(self.decoder.embed(ids.to(self.decoder.device)), attend)
        cache.commit(ids)
        return h


class Full(Windowed):
    """Plain causal attention over every token of the context, resident or live."""

    name = "full"

    @cached_property
    def reach(self) -> Reach:
        """All positions before the query's."""
        return Reach(None, 0)

    def live(self, context: Context) -> Tensor:
        return context.tokens.slice(0, len(context)).clone()


def projected(decoder: Decoder, layer: int, a: Tensor) -> tuple[Tensor, Tensor]:
    """Un-rotated queries with keys (T, heads + kv_heads, D), and values (T, kv_heads, D)."""
    config = decoder.config
    qkv: Tensor = decoder.layers[layer].qkv(a)
    rows = qkv.view(len(a), -1, config.head_dim)
    split = config.num_heads + config.num_kv_heads
    return rows[:, :split], rows[:, split:]


def _over_sequence(decoder: Decoder, reach: Reach, count: int) -> Attend:
    heads, device = decoder.config.num_heads, decoder.device
    length = reach.length(count)
    turn = Rotation(decoder.rotary.phases(0, count, length, device), decoder.dtype)
    capped, mask = None, None
    if not reach.plain(count):
        capped = _capped_rotation(decoder, reach, 0, count, length)
        mask = _mask(reach, 0, count, torch.arange(count, device=device))

    def attend(layer: int, a: Tensor) -> Tensor:
        qk, v = projected(decoder, layer, a)
        rotated = turn(qk)
        q, k = rotated[:, :heads], rotated[:, heads:].transpose(0, 1)
        v = v.transpose(0, 1)
        if capped is None or mask is None:
            return attention_over(q, k, v, None, causal=True)
        return _two_part(q, capped(qk[:, :heads]), k, v, mask, reach.sinks)

    return attend


def _over_cache(
    decoder: Decoder, reach: Reach, cache: LiveCache, start: int, count: int, length: int
) -> Attend:
    heads, device = decoder.config.num_heads, decoder.device
    stop = start + count
    turn = Rotation(decoder.rotary.phases(start, stop, length, device), decoder.dtype)
    plain, last_layer = reach.plain(stop), decoder.config.num_layers - 1
    first = 0 if plain or reach.window is None else max(start - reach.window + 1, reach.sinks)
    window = cache.span(first, stop)
    mask, capped = None, None
    if not plain:
        capped = _capped_rotation(decoder, reach, start, stop, length)
        sinks = torch.arange(reach.sinks, device=device)
        seen = torch.cat((sinks, torch.arange(first, stop, device=device)))
        mask = _mask(reach, start, stop, seen)
    elif count > 1 and start > 0:
        mask = _mask(reach, start, stop, torch.arange(stop, device=device))

    def attend(layer: int, a: Tensor) -> Tensor:
        qk, v = projected(decoder, layer, a)
        rotated = turn(qk)
        cache.write(layer, start, rotated[:, heads:], v)
        keys, values = cache.keys[layer], cache.values[layer]
        q = rotated[:, :heads]
        if plain and layer == last_layer:  # nothing but the last position is asked for
            return attention_over(q[-1:], keys[:, window], values[:, window], None, causal=False)
        if capped is None or mask is None:
            causal = start == 0 and count > 1
            return attention_over(q, keys[:, window], values[:, window], mask, causal)
        sinks = slice(0, reach.sinks)
        k = torch.cat((keys[:, sinks], keys[:, window]), 1)
        v = torch.cat((values[:, sinks], values[:, window]), 1)
        return _two_part(q, capped(qk[:, :heads]), k, v, mask, reach.sinks)

    return attend


def _capped_rotation(
    decoder: Decoder, reach: Reach, start: int, stop: int, length: int
) -> Rotation:
    """The rotation by which queries start..stop-1 meet the sinks."""
    positions = torch.arange(start, stop, device=decoder.device)
    phases = decoder.rotary.at(positions.clamp(max=cast(int, reach.size) - 1), length)
    return Rotation(phases, decoder.dtype)


def _mask(reach: Reach, start: int, stop: int, seen: Tensor) -> Tensor:
    """(T, len(seen)) bool: may queries start..stop-1 attend to the positions ``seen``?"""
    queries = torch.arange(start, stop, device=seen.device)[:, None]
    allowed = seen <= queries
    if reach.window is not None:
        allowed &= (seen < reach.sinks) | (seen > queries - reach.window)
    return allowed


def attention_over(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """(T, heads * D) from q (T, heads, D) and k, v (kv_heads, n, D)."""
    count, heads, kv_heads = len(q), q.shape[1], k.shape[0]
    if count > 1 and q.device.type == "cpu" and q.dtype != torch.float32:
        q, k, v, mask = _in_steps(q, k, v, mask)
    out = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None],
        k[None],
        v[None],
        attn_mask=mask,
        is_causal=causal,
        enable_gqa=kv_heads != heads,
    )
    return out[0, :, :count].transpose(0, 1).flatten(1)


def _in_steps(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The same with zeros at the end of queries and keys, to multiples of ``_STEP``.

    PyTorch's attention in 16 bits compiles code for each pair of lengths and keeps it for good,
    up to a megabyte for each. No query comes to see a key that is added: those stand behind it.
    """
    rows, columns = -len(q) % _STEP, -k.shape[1] % _STEP
    q, k, v = F.pad(q, (0, 0, 0, 0, 0, rows)), *(F.pad(x, (0, 0, 0, columns)) for x in (k, v))
    return q, k, v, None if mask is None else F.pad(mask, (0, columns, 0, rows))


def _two_part(q: Tensor, q_sinks: Tensor, k: Tensor, v: Tensor, mask: Tensor, sinks: int) -> Tensor:
    """Attention whose first ``sinks`` keys are met by ``q_sinks`` instead of ``q``.

    q, q_sinks: (T, heads, D); k, v: (kv_heads, n, D); mask: (T, n). Returns (T, heads * D).
    """
    count, heads, dim = q.shape
    kv_heads = k.shape[0]

    def grouped(x: Tensor) -> Tensor:  # (kv_heads, group * T, D)
        return x.transpose(0, 1).reshape(kv_heads, -1, dim)

    near = torch.bmm(grouped(q), k[:, sinks:].transpose(1, 2))
    far = torch.bmm(grouped(q_sinks), k[:, :sinks].transpose(1, 2))
    scores = torch.cat((far, near), -1).float().mul_(dim**-0.5)
    scores = scores.view(heads, count, -1).masked_fill_(~mask, -torch.inf)
    weights = scores.softmax(-1).to(v.dtype).view(kv_heads, -1, scores.shape[-1])
    out = torch.bmm(weights, v).view(heads, count, dim)
    return out.transpose(0, 1).flatten(1)
