"""Keeps a context in step with a session: these parts resident, then these live tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from nazx_cli.context.context import Context
    from nazx_cli.reading.part import Part


class Arranged:
    """A context, and the parts that stand resident at its beginning.

    Only what differs is deleted and inserted, so that whatever a layout derives from the
    tokens before the first difference stays valid. A method that is cut short leaves the
    context in an unknown state: drop it then.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.parts: tuple[Part, ...] = ()

    def bring_parts(self, parts: Sequence[Part]) -> None:
        """Make ``parts``, in this order, the resident tokens."""
        old, new = self.parts, tuple(parts)
        first = _agreeing(old, new)
        last = _agreeing(old[first:][::-1], new[first:][::-1])
        gone, come = old[first : len(old) - last], new[first : len(new) - last]
        at = sum(map(len, old[:first]))
        self.context.delete(at, at + sum(map(len, gone)))
        if come:
            ids = torch.from_numpy(np.concatenate([part.ids for part in come]))
            self.context.insert(at, ids, resident=True)
        self.parts = new

    def bring_live(self, ids: Sequence[int]) -> None:
        """Make ``ids`` the live tokens, keeping what agrees from the beginning."""
        kept = 0
        for old, new in zip(self.context.live_ids, ids, strict=False):
            if old != new:
                break
            kept += 1
        self.context.truncate_live(kept)
        self.context.append(ids[kept:])


def _agreeing(old: Sequence[Part], new: Sequence[Part]) -> int:
    """How many parts are the same from the beginning on."""
    count = 0
    for a, b in zip(old, new, strict=False):
        if a is not b and not np.array_equal(a.ids, b.ids):
            break
        count += 1
    return count
