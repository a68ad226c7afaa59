"""A context: token ids, resident or live, plus what one memory layout derives from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from nazx_cli.errors import NazxError

_TAIL = 1024  # single appends gathered before they join the main array


def as_ids(ids: Sequence[int] | Tensor) -> Tensor:
    """(n,) int32 from a list of int or a 1-D integer tensor."""
    tensor = ids if isinstance(ids, Tensor) else torch.tensor(list(ids), dtype=torch.int64)
    if tensor.dim() != 1 or tensor.is_floating_point() or tensor.is_complex():
        raise NazxError("token ids must be a list of whole numbers or a 1-D integer tensor")
    return tensor.detach().to("cpu", torch.int32)


class TokenSequence:
    """N token ids, 4 bytes each, edited in place of a list; runs tell resident from live."""

    def __init__(self) -> None:
        self._body = torch.empty(0, dtype=torch.int32)
        self._tail = torch.empty(_TAIL, dtype=torch.int32)
        self._tail_len = 0
        self._runs: list[tuple[int, bool]] = []  # (length, resident), neighbours differ
        self.resident_edits = 0
        """How often resident ids came or went."""

    def __len__(self) -> int:
        return len(self._body) + self._tail_len

    @property
    def total(self) -> int:
        """Positions in all: these are all there are."""
        return len(self)

    @property
    def nbytes(self) -> int:
        """Bytes held for the ids."""
        return (self._body.numel() + self._tail.numel()) * 4

    def slice(self, start: int, stop: int) -> Tensor:
        """ids[start:stop] as int32; a view where they lie in the main array."""
        body = len(self._body)
        if stop <= body:
            return self._body[start:stop]
        tail = self._tail[max(start - body, 0) : stop - body]
        return tail if start >= body else torch.cat((self._body[start:], tail))

    def insert(self, at: int, ids: Tensor, resident: bool) -> None:
        """Put ``ids`` before position ``at``."""
        self.resident_edits += resident
        if at == len(self) and self._tail_len + len(ids) <= _TAIL:
            self._tail[self._tail_len : self._tail_len + len(ids)] = ids
            self._tail_len += len(ids)
        else:
            parts = (self.slice(0, at), ids, self.slice(at, len(self)))
            self._set_body(torch.cat(parts))
        self._runs = _merged([*self._cut(0, at), (len(ids), resident), *self._cut(at, None)])

    def delete(self, start: int, stop: int) -> None:
        """Remove ids[start:stop]."""
        kept = [*self._cut(0, start), *self._cut(stop, None)]
        self.resident_edits += any(resident for _, resident in self._cut(start, stop))
        body, end = len(self._body), len(self)
        if start >= body:
            rest = self._tail[stop - body : self._tail_len].clone()
            self._tail[start - body : start - body + len(rest)] = rest
            self._tail_len -= stop - start
        else:
            self._set_body(torch.cat((self.slice(0, start), self.slice(stop, end))))
        self._runs = _merged(kept)

    def live(self, start: int = 0) -> Tensor:
        """ids that are not resident, from the ``start``-th live one on; int32."""
        parts: list[Tensor] = []
        at = seen = 0
        for length, resident in self._runs:
            if not resident:
                skip = min(max(start - seen, 0), length)
                parts.append(self.slice(at + skip, at + length))
                seen += length
            at += length
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int32)

    def resident(self) -> Tensor:
        """ids that are resident; int32, a view where they are one stretch of the main array."""
        parts, at = [], 0
        for length, resident in self._runs:
            if resident:
                parts.append(self.slice(at, at + length))
            at += length
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int32)

    @property
    def live_count(self) -> int:
        """How many ids are live."""
        return sum(length for length, resident in self._runs if not resident)

    def live_spans(self) -> list[tuple[int, int]]:
        """(start, stop) of every live stretch."""
        spans, at = [], 0
        for length, resident in self._runs:
            if not resident:
                spans.append((at, at + length))
            at += length
        return spans

    def _set_body(self, body: Tensor) -> None:
        self._body = body
        self._tail_len = 0

    def _cut(self, start: int, stop: int | None) -> list[tuple[int, bool]]:
        """Runs of positions start..stop-1."""
        out, at = [], 0
        for length, resident in self._runs:
            low = max(start - at, 0)
            high = length if stop is None else min(stop - at, length)
            if high > low:
                out.append((high - low, resident))
            at += length
        return out


class Memory(Protocol):
    """What is derived from a context's ids; brought up to date when logits are asked for."""

    @property
    def nbytes(self) -> int:
        """Bytes really held."""

    def edited(self, at: int, removed: int, added: int) -> None:
        """``removed`` positions from ``at`` on are about to go and ``added`` to come in their
        place; called before the edit."""


class Context:
    """Token ids, resident (documents) or live (conversation), in one order.

    Edits touch nothing but the ids; whatever a layout derives is mended at the next
    ``next_logits``. Positions out of range raise ``NazxError`` and change nothing. What is derived
    from a position may depend on as many as ``window`` tokens, its own and those before it.
    """

    def __init__(self, memory: Memory, vocab_size: int, layout: str = "", window: int = 1) -> None:
        self.tokens = TokenSequence()
        self.memory = memory
        self.layout = layout
        self._vocab_size = vocab_size
        self._window = window

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def ids(self) -> Tensor:
        """(N,) int64, a copy."""
        return self.tokens.slice(0, len(self)).to(torch.int64)

    @property
    def live_ids(self) -> list[int]:
        """Ids of the conversation: all that are not resident."""
        return self.tokens.live().tolist()

    @property
    def nbytes(self) -> int:
        """Bytes held for this context beyond the model's weights."""
        return self.tokens.nbytes + self.memory.nbytes

    def append(self, ids: Sequence[int] | Tensor, resident: bool = False) -> None:
        """Add ``ids`` at the end."""
        self.tokens.insert(len(self), self._checked(ids), resident)

    def insert(self, at: int, ids: Sequence[int] | Tensor, resident: bool = False) -> None:
        """Put ``ids`` before position ``at``, 0 <= at <= N."""
        if not 0 <= at <= len(self):
            raise NazxError(f"cannot insert at {at}: the context has {len(self)} tokens")
        new = self._checked(ids)
        if at < len(self) and len(new):
            self._tell(at, 0, len(new))
        self.tokens.insert(at, new, resident)

    def delete(self, start: int, stop: int) -> None:
        """Remove positions start..stop-1, 0 <= start <= stop <= N."""
        if not 0 <= start <= stop <= len(self):
            raise NazxError(f"cannot delete {start} to {stop}: the context has {len(self)} tokens")
        if start < stop:
            self._tell(start, stop - start, 0)
            self.tokens.delete(start, stop)

    def truncate_live(self, count: int) -> None:
        """Keep the first ``count`` live tokens; later live ones go, resident ones stay."""
        surplus = self.tokens.live_count - count
        for start, stop in reversed(self.tokens.live_spans()):
            if surplus <= 0:
                return
            cut = min(surplus, stop - start)
            self.delete(stop - cut, stop)
            surplus -= cut

    def _tell(self, at: int, removed: int, added: int) -> None:
        """Of an edit to come: those behind it that see it count as replaced."""
        behind = min(self._window - 1, len(self) - at - removed)
        self.memory.edited(at, removed + behind, added + behind)

    def _checked(self, ids: Sequence[int] | Tensor) -> Tensor:
        new = as_ids(ids)
        if len(new) and not (int(new.min()) >= 0 and int(new.max()) < self._vocab_size):
            raise NazxError(f"token id out of range: the vocabulary has {self._vocab_size} entries")
        return new


def _merged(runs: list[tuple[int, bool]]) -> list[tuple[int, bool]]:
    out: list[tuple[int, bool]] = []
    for length, resident in runs:
        if not length:
            continue
        if out and out[-1][1] == resident:
            out[-1] = (out[-1][0] + length, resident)
        else:
            out.append((length, resident))
    return out
