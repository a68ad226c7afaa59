"""Running whole sequences through the decoder for training, several at a time, in memory that
grows with their length and not with its square.

The result is that of the model's own attention kind, sequence by sequence, for those that attend
plainly; the others' own code runs instead. Queries attend in blocks, and with ``recompute`` a
layer keeps nothing for the backward pass but its input: what it needs is computed once more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nazx_cli.kernels.rotary import Rotation
from nazx_cli.model.attention import attention_of
from nazx_cli.model.attention.inattention import InitialStateProjections
from nazx_cli.model.attention.sights import Reach
from nazx_cli.model.attention.windowed import Windowed
from nazx_cli.model.decoder import Block, Decoder
from nazx_cli.model.layers import grams_of

_ROWS = 512  # queries that attend at a time
_LOSSES = 2048  # positions whose logits are held at a time
_HIDDEN = -1e4  # added to a score that must not count


def loss_sum(decoder: Decoder, ids: Tensor, recompute: bool = False) -> Tensor:
    """The sum of the losses of ids[:, 1:], each foretold from those before it; ids (B, T + 1)."""
    states = final_states(decoder, ids[:, :-1], recompute)
    wanted = ids[:, 1:].flatten()
    run = _runner(recompute)
    total = torch.zeros((), device=states.device)
    for start in range(0, len(states), _LOSSES):
        part = slice(start, start + _LOSSES)
        total = total + run(_losses, decoder, states[part], wanted[part])
    return total


def final_states(decoder: Decoder, ids: Tensor, recompute: bool = False) -> Tensor:
    """(B * T, C) states after all layers of every position of ids (B, T)."""
    config = decoder.config
    if not config.attends_plainly:
        kind = attention_of(decoder)
        return torch.cat([kind.sequence(row) for row in ids])
    grams = grams_of(ids, config.attention.initial_window)
    h = decoder.initial(grams.flatten(0, 1))
    initial = None
    if config.attention.kind == "inattention":
        initial = InitialStateProjections(decoder).standardized(h)
    attend = _Attend(decoder, len(ids), ids.shape[1], recompute)
    run = _runner(recompute)
    for block in decoder.layers:
        h = run(_layer, block, h, initial, attend)
    return h


def _runner(recompute: bool) -> Callable[..., Tensor]:
    """What calls a function with its values: so that it keeps nothing but those, or plainly."""
    return partial(checkpoint, use_reentrant=False) if recompute else _plainly


def _plainly(function: Callable[..., Tensor], *values: object) -> Tensor:
    return function(*values)


def _layer(block: Block, h: Tensor, initial: Tensor | None, attend: _Attend) -> Tensor:
    """One layer's output from its input h (B * T, C)."""
    a = block.normalized(h)
    if initial is None:
        qk, v = block.projected(a)
        q, k = qk[:, : block.heads], qk[:, block.heads :]
    else:
        q = block.query(a).view(len(a), block.heads, -1)
        kv = block.key_value(block.initial_norm.affine(initial))
        k, v = kv.view(len(a), 2, -1, block.head_dim).unbind(1)
    return block.residual(h, attend(q, k, v))


def _losses(decoder: Decoder, states: Tensor, wanted: Tensor) -> Tensor:
    return F.cross_entropy(decoder.logits(states), wanted, reduction="sum")


class _Attend:
    """How the positions of B sequences of T see: all before them, or sinks and a window."""

    def __init__(self, decoder: Decoder, batch: int, count: int, recompute: bool) -> None:
        kind, config = attention_of(decoder), decoder.config
        self._batch, self._count, self._recompute = batch, count, recompute
        self._reach = kind.reach if isinstance(kind, Windowed) else Reach(None, 0)
        self._scale = config.attention_scale
        length = self._reach.length(count)
        phases = decoder.rotary.phases(0, count, length, decoder.device)
        self._turn = _rotation(phases, batch, decoder.dtype)
        self._capped: Rotation | None = None
        if not self._reach.plain(count) and self._reach.size is not None:
            at = torch.arange(count, device=decoder.device).clamp(max=self._reach.size - 1)
            self._capped = _rotation(decoder.rotary.at(at, length), batch, decoder.dtype)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B * T, heads * D) of queries, keys and values (B * T, heads or kv_heads, D)."""
        near = self._split(self._turn(q) * self._scale)
        far = None if self._capped is None else self._split(self._capped(q) * self._scale)
        k, v = self._split(self._turn(k)), self._split(v)
        group = near.shape[1] // k.shape[1]
        if group > 1:
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        run = _runner(self._recompute)
        out = [run(self._rows, near, far, k, v, start) for start in range(0, self._count, _ROWS)]
        joined = torch.cat(out, 2) if len(out) > 1 else out[0]  # (B, heads, T, D)
        return joined.transpose(1, 2).flatten(2).flatten(0, 1)

    def _rows(self, near: Tensor, far: Tensor | None, k: Tensor, v: Tensor, start: int) -> Tensor:
        """(B, heads, rows, D): what the queries from ``start`` on take."""
        stop = min(start + _ROWS, self._count)
        sinks, window = self._reach.sinks, self._reach.window
        first = 0
        if far is not None and window is not None:
            first = max(sinks, start - window + 1)
        # Three plain products: on a CPU torch's fused attention takes longer backward.
        scores = near[:, :, start:stop] @ k[:, :, first:stop].transpose(2, 3)
        seen = torch.arange(first, stop, device=k.device)
        values = v[:, :, first:stop]
        if far is not None and sinks:
            known = min(sinks, stop)
            to_sinks = far[:, :, start:stop] @ k[:, :, :known].transpose(2, 3)
            scores = torch.cat((to_sinks, scores), -1)
            values = torch.cat((v[:, :, :known], values), 2)
            seen = torch.cat((torch.arange(known, device=k.device), seen))
        return (scores + self._hidden(start, stop, seen, scores.dtype)).softmax(-1) @ values

    def _hidden(self, start: int, stop: int, seen: Tensor, dtype: torch.dtype) -> Tensor:
        """(rows, seen): what is added to the scores."""
        at = torch.arange(start, stop, device=seen.device)[:, None]
        hidden = seen > at
        if self._capped is not None and self._reach.window is not None:
            hidden |= (seen >= self._reach.sinks) & (seen <= at - self._reach.window)
        return torch.zeros(hidden.shape, dtype=dtype, device=seen.device).masked_fill_(
            hidden, _HIDDEN
        )

    def _split(self, x: Tensor) -> Tensor:
        """(B, heads, T, D) of x (B * T, heads, D)."""
        return x.view(self._batch, self._count, *x.shape[1:]).transpose(1, 2)


def _rotation(phases: Tensor, batch: int, dtype: torch.dtype) -> Rotation:
    """Rotation of B sequences one after another to the same positions."""
    return Rotation(phases.repeat(batch, 1), dtype)
