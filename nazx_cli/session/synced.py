"""A context in step with a conversation: its documents resident, then its live tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import eq
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

if TYPE_CHECKING:
    from nazx_cli.context.context import Context
    from nazx_cli.reading.tokenized import TokenizedDocument

_T = TypeVar("_T")


class SyncedContext:
    """A context that is kept in step: documents resident at its beginning, then live tokens.

    Only what differs is deleted and inserted, so that whatever a layout derives from the
    tokens before the first difference stays valid. A method that is cut short leaves the
    context in an unknown state: drop it then.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.documents: tuple[TokenizedDocument, ...] = ()

    def set_documents(self, documents: Sequence[TokenizedDocument]) -> None:
        """Make ``documents``, in this order, the resident tokens."""
        old, new = self.documents, tuple(documents)
        first = _agreeing(old, new, _same_tokens)
        last = _agreeing(old[first:][::-1], new[first:][::-1], _same_tokens)
        gone, come = old[first : len(old) - last], new[first : len(new) - last]
        at = sum(map(len, old[:first]))
        self.context.delete(at, at + sum(map(len, gone)))
        if come:
            ids = torch.from_numpy(np.concatenate([document.ids for document in come]))
            self.context.insert(at, ids, resident=True)
        self.documents = new

    def set_live(self, ids: Sequence[int]) -> None:
        """Make ``ids`` the live tokens, keeping what agrees from the beginning."""
        kept = _agreeing(self.context.live_ids, ids, eq)
        self.context.truncate_live(kept)
        self.context.append(ids[kept:])


def _agreeing(old: Sequence[_T], new: Sequence[_T], same: Callable[[_T, _T], bool]) -> int:
    """How many items are the same from the beginning on."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((at for at, (a, b) in pairs if not same(a, b)), min(len(old), len(new)))


def _same_tokens(one: TokenizedDocument, other: TokenizedDocument) -> bool:
    return one is other or np.array_equal(one.ids, other.ids)
