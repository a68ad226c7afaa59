"""The static cache of running keys and values that windowed and full attention need.

Positions are those of the live conversation. Rows of the first ``sinks`` positions stay for
good; of the others the last ``window`` are needed and some more are kept, so that shortening the
conversation a little (taking an answer back) costs no recomputation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.context.cost import LIVE_SLACK
from nazx_cli.kernels import ROW_STEP


def same_beginning(a: Tensor, b: Tensor) -> int:
    """How many tokens both, (n,) and (m,), begin with."""
    n = min(len(a), len(b))
    differ = (a[:n] != b[:n]).nonzero()
    return int(differ[0]) if len(differ) else n


class LiveCache:
    """Rotated keys and values of positions 0..sinks-1 and base..count-1, in that order.

    ``keys`` and ``values`` are (layers, kv_heads, capacity, D): all heads, or those that this
    process has. ``ids`` are the tokens that the rows were computed from. Rows may be computed with
    a far memory, that has read a text to ``far_state``; ``far_name`` names it as no other.
    """

    def __init__(
        self,
        config: ModelConfig,
        kv_heads: int,
        dtype: torch.dtype,
        device: torch.device,
        window: int | None,
        sinks: int,
    ) -> None:
        self.window = window
        self.sinks = sinks
        self._shape = (config.num_layers, kv_heads)
        self._dim = config.head_dim
        self.keys = torch.empty(*self._shape, 0, self._dim, dtype=dtype, device=device)
        self.values = torch.empty_like(self.keys)
        self.ids = torch.empty(0, dtype=torch.int32)
        self.far_name = ""
        self.far_seen: object = None  # what it was found by, so as not to look again
        self.far_state: Tensor | None = None
        self.base = sinks  # first position after the sinks that is still held

    @property
    def count(self) -> int:
        """Positions computed so far."""
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and ids, and of what a far memory has read."""
        held = self.keys.nbytes + self.values.nbytes + self.ids.nbytes
        return held + (0 if self.far_state is None else self.far_state.nbytes)

    @property
    def room(self) -> int:
        """Positions that can be added without a larger buffer."""
        return self.keys.shape[2] - self._index(self.count)

    @property
    def slack(self) -> int:
        """Positions held beyond the window, and the longest piece computed at once past it."""
        return LIVE_SLACK

    def edited(self, at: int, removed: int, added: int) -> None:
        """Nothing to do: ``match`` compares tokens, so that edits of resident text, which
        never run through the layers, leave the cache alone."""

    def bind(self, name: str, state: Tensor | None) -> None:
        """Hold rows that are computed with the far memory of that name: no others stay."""
        self.clear()
        self.far_name, self.far_state = name, state

    def clear(self) -> None:
        """Forget every position."""
        self.ids = self.ids[:0]
        self.base = self.sinks

    def match(self, live: Tensor) -> int:
        """Keep what was computed from a prefix of ``live`` (n,) int32; returns its length.

        One position less than all of ``live`` is kept, since the last one must run to give
        logits. Where rows that the window needs are gone, everything is forgotten.
        """
        self._truncate(min(same_beginning(self.ids, live), len(live) - 1))
        return self.count

    def reserve(self, more: int) -> None:
        """Make room for ``more`` positions, dropping rows that no window reaches any more."""
        used = self._index(self.count)
        if self.window is not None and self.count > self.sinks:
            limit = self.sinks + self.window + self.slack
            first = max(self.count - self.window + 1, self.sinks)
            if used + more > limit and first > self.base:
                self._drop_before(first)
                used = self._index(self.count)
        capacity = self.keys.shape[2]
        if used + more > capacity:
            self._grow(used, used + more)

    def write(self, layer: int, start: int, keys: Tensor, values: Tensor) -> None:
        """Store rows (T, kv_heads, D) of positions start.. of one layer."""
        at = self._index(start)
        self.keys[layer, :, at : at + len(keys)] = keys.transpose(0, 1)
        self.values[layer, :, at : at + len(values)] = values.transpose(0, 1)

    def span(self, start: int, stop: int) -> slice:
        """Where positions start..stop-1 (all sinks, or all held) lie in the buffers."""
        return slice(self._index(start), self._index(stop))

    def commit(self, ids: Tensor) -> None:
        """Count ``ids`` as computed once every layer has written its rows."""
        self.ids = torch.cat((self.ids, ids))

    def _index(self, position: int) -> int:
        return position if position < self.sinks else self.sinks + position - self.base

    def _truncate(self, count: int) -> None:
        self.ids = self.ids[:count]
        if self.window is None or self.base == self.sinks:
            return
        needed = max(count - self.window + 1, self.sinks)
        if needed < self.base:
            self.clear()

    def _drop_before(self, first: int) -> None:
        kept = self._index(self.count) - self._index(first)
        source = slice(self._index(first), self._index(first) + kept)
        target = slice(self.sinks, self.sinks + kept)
        for store in (self.keys, self.values):
            store[:, :, target] = store[:, :, source].clone()
        self.base = first

    def _grow(self, used: int, need: int) -> None:
        extra = need // 4 if self.window is None else 0
        capacity = -(-(need + extra) // ROW_STEP) * ROW_STEP
        if self.window is not None:
            capacity = max(min(capacity, self.sinks + self.window + self.slack), need)
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_empty(*self._shape, capacity, self._dim)
            new[:, :, :used] = old[:, :, :used]
            setattr(self, name, new)
