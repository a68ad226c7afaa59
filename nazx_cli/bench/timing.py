"""Timing two or more sides fairly: they take turns, and what is told is medians and spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import TypeVar

_T = TypeVar("_T")

Side = Callable[[], float]
"""Does one run, preparing whatever it needs, and returns the seconds that count."""


def clock(work: Callable[[], _T]) -> tuple[float, _T]:
    """Seconds that ``work`` takes, and what it returns."""
    start = perf_counter()
    value = work()
    return perf_counter() - start, value


def alternate(
    sides: Sequence[Side],
    repeat: int,
    *,
    warm_up: bool = True,
    on_round: Callable[[int, int], None] | None = None,
) -> list[tuple[float, ...]]:
    """For each side its ``repeat`` figures, one of each round.

    Sides take turns, and their order is turned round every time: what else the machine does,
    and what it has just done, is then shared between them. A first round is not counted, since
    it allocates and loads code; leave it out with ``warm_up=False``.
    """
    if warm_up:
        for side in sides:
            side()
    figures: list[list[float]] = [[] for _ in sides]
    for number in range(repeat):
        if on_round:
            on_round(number + 1, repeat)
        order = range(len(sides))
        for at in reversed(order) if number % 2 else order:
            figures[at].append(sides[at]())
    return [tuple(runs) for runs in figures]


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Median of theirs / ours round by round; None where the two were not run in rounds."""
    if not ours or len(ours) != len(theirs):
        return None
    return median(b / a for a, b in zip(ours, theirs, strict=True))


def quadratic_through(
    first: tuple[int, float], second: tuple[int, float]
) -> Callable[[float], float]:
    """t(n) = a n + b n^2 through two measured points (n, seconds).

    The two terms are those of a prefill: projections cost n, attention n^2. Where noise makes b
    negative, growth is taken as linear from the second point, which keeps t(n) from falling.
    """
    (n1, t1), (n2, t2) = first, second
    if n1 == n2:
        raise ValueError("two different lengths are needed")
    b = (t2 / n2 - t1 / n1) / (n2 - n1)
    a = t1 / n1 - b * n1
    if b < 0:
        a, b = t2 / n2, 0.0
    return lambda n: a * n + b * n * n
