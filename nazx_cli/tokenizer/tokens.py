"""A tokenized text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]
"""Called with (done, total) while a long job runs."""


@dataclass(frozen=True)
class Tokens:
    """A tokenized text: ``ids`` (N,) int32 and ``starts`` (N,) int32, each token's first
    character in the text."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)


def joined(parts: Sequence[Tokens]) -> Tokens:
    """One after another; ``starts`` are taken as they are."""
    empty = np.zeros(0, np.int32)
    ids = np.concatenate([empty, *(part.ids for part in parts)])
    starts = np.concatenate([empty, *(part.starts for part in parts)])
    return Tokens(ids, starts)
