"""A context: token ids plus what one memory layout derives from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from nazx_cli.context.tokens import TokenSequence, as_ids
from nazx_cli.errors import NazxError


class Memory(Protocol):
    """What is derived from a context's ids; brought up to date when logits are asked for."""

    @property
    def nbytes(self) -> int:
        """Bytes really held."""

    def edited(self, tokens: TokenSequence, at: int, removed: int, added: int) -> None:
        """``removed`` positions from ``at`` on are about to go and ``added`` to come in their
        place; called before the edit."""


class Context:
    """Token ids, resident (documents) or live (conversation), in one order.

    Edits touch nothing but the ids; whatever a layout derives is mended at the next
    ``next_logits``. Positions out of range raise ``NazxError`` and change nothing.
    """

    def __init__(self, memory: Memory, vocab_size: int, layout: str = "") -> None:
        self.tokens = TokenSequence()
        self.memory = memory
        self.layout = layout
        self._vocab_size = vocab_size

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
            self.memory.edited(self.tokens, at, 0, len(new))
        self.tokens.insert(at, new, resident)

    def delete(self, start: int, stop: int) -> None:
        """Remove positions start..stop-1, 0 <= start <= stop <= N."""
        if not 0 <= start <= stop <= len(self):
            raise NazxError(f"cannot delete {start} to {stop}: the context has {len(self)} tokens")
        if start < stop:
            self.memory.edited(self.tokens, start, stop - start, 0)
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

    def _checked(self, ids: Sequence[int] | Tensor) -> Tensor:
        new = as_ids(ids)
        if len(new) and not (int(new.min()) >= 0 and int(new.max()) < self._vocab_size):
            raise NazxError(f"token id out of range: the vocabulary has {self._vocab_size} entries")
        return new
