"""What a common stem comes to in each block of a segment, at most: a byte for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.reading.tallies import ROUNDING, Blocks, Counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMMON = 1 / 8
"""Entries for each block: a stem with as many has its levels in the segment. Of others these are
reckoned sooner than read."""
_LEAST, _MOST = 0.04, 160.0  # of counts as they are told apart, in steps of 3 %

# (256,) what a level stands for; 0 for nothing, the last one for any count
_VALUES = np.concatenate(([0], np.geomspace(_LEAST, _MOST, 254), [1e9])).astype(np.float32)


def levels(
    blocks: Blocks, lists: Iterable[tuple[NDArray[np.int32], Counts]]
) -> Iterator[NDArray[np.uint8]]:
    """(B,) for each of ``lists``, of the passages in which something stands and how often in each:
    the least level that stands for as much as it counts in any passage of each block."""
    reach = np.arange(-blocks.reach, blocks.width + blocks.reach)
    around = blocks.begins[:, None] + reach
    size = int(blocks.highs.max(initial=0))
    inside = (around >= blocks.lows[:, None]) & (around < blocks.highs[:, None])
    around = np.where(inside, around, size)
    for passages, counts in lists:
        row = np.zeros(size + 1, np.float32)
        row[passages] = counts
        most = blocks.roughly(row[around]).max(axis=1) * np.float32(1 + ROUNDING)
        yield np.searchsorted(_VALUES, most).astype(np.uint8)


def limits(found: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What levels stand for."""
    return _VALUES[found]
