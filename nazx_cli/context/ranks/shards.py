"""Which rank holds which positions of a context, and what its edits mean for each of them.

Every rank holds one stretch, in the order of the ranks, and counts its positions from 0: where the
stretch begins is not its concern, so that an edit costs the rank in whose stretch it is and no
other. What is new stays with the rank of what stands before it; where that leaves one rank with too
much, or most is new, all is cut anew into equal stretches.

No torch here: this is about numbers of positions alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

_MOST = 1.25  # times its equal share that a rank may hold
_SPARE = 4_096  # positions beyond that: an answer moves nothing


class Edit(NamedTuple):
    """At ``at`` of a stretch ``removed`` positions go and those start..stop-1 of the whole context
    come in their place; edits are done in their order."""

    at: int
    removed: int
    start: int
    stop: int

    @property
    def added(self) -> int:
        """How many come."""
        return self.stop - self.start


@dataclass(frozen=True)
class Stretch:
    """What a rank holds after ``edits``: positions start..start+length-1."""

    start: int
    length: int
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class _Run:
    """``length`` positions, of which ``rank`` has held the first as its position ``at``; no rank
    has where it is None."""

    rank: int | None
    at: int
    length: int


class Shards:
    """The stretches of ``ranks`` ranks; edits wait until they are settled."""

    def __init__(self, ranks: int) -> None:
        self._held = [0] * ranks
        self._runs: list[_Run] = []

    @property
    def total(self) -> int:
        """Positions of all, edits included."""
        return sum(run.length for run in self._runs)

    def edited(self, at: int, removed: int, added: int) -> None:
        """``removed`` positions from ``at`` on go and ``added`` come in their place."""
        before, behind = _cut(self._runs, 0, at), _cut(self._runs, at + removed, self.total)
        self._runs = [*before, _Run(None, 0, added), *behind]

    def settle(self, total: int) -> list[Stretch]:
        """What each rank holds from now on, of a context that is ``total`` long: what it was told
        of no edit about is new at its end."""
        self.edited(self.total, 0, total - self.total)
        lengths = self._lengths()
        stretches, start = [], 0
        for rank, length in enumerate(lengths):
            runs = _cut(self._runs, start, start + length)
            edits = tuple(_edits(rank, self._held[rank], runs, start))
            stretches.append(Stretch(start, length, edits))
            start += length
        self._held = lengths
        self._runs = [_Run(rank, 0, length) for rank, length in enumerate(lengths)]
        return stretches

    def _lengths(self) -> list[int]:
        """How much each rank is to hold."""
        lengths, rank, new = [0] * len(self._held), 0, 0
        for run in self._runs:
            rank = rank if run.rank is None else run.rank
            lengths[rank] += run.length
            new += run.length if run.rank is None else 0
        total = sum(lengths)
        if 2 * new <= total and max(lengths) <= _MOST * total / len(lengths) + _SPARE:
            return lengths
        each, more = divmod(total, len(lengths))
        return [each + (rank < more) for rank in range(len(lengths))]


def _edits(rank: int, held: int, runs: Sequence[_Run], start: int) -> Iterator[Edit]:
    """How ``rank``, which has ``held`` positions, comes to hold ``runs``, which begin at ``start``
    of the whole."""
    done = new = known = 0  # of the stretch; of it, what is new since the last run that stays
    for run in (*runs, _Run(rank, held, 0)):
        if run.rank == rank:
            if new or run.at > known:
                at = done - new
                yield Edit(at, run.at - known, start + at, start + done)
            new, known = 0, run.at + run.length
        else:
            new += run.length
        done += run.length


def _cut(runs: Sequence[_Run], start: int, stop: int) -> list[_Run]:
    """Runs of positions start..stop-1."""
    out, at = [], 0
    for run in runs:
        low, high = max(start - at, 0), min(stop - at, run.length)
        if high > low:
            out.append(replace(run, at=run.at + low, length=high - low))
        at += run.length
    return out
