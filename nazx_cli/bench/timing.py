"""Timing two or more sides fairly: they take turns, and what is told is medians and spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import TypeVar

import torch

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


def quadratic_fit(points: Sequence[tuple[int, float]]) -> Callable[[float], float]:
    """t(n) = a n + b n^2 nearest to measured points (n, seconds), in relative error.

    The two terms are those of a prefill: projections cost n, attention n^2. Two points are met
    exactly. Where noise makes b negative, growth is taken as linear from the longest point,
    which keeps t(n) from falling. At least two different lengths.
    """
    # With y = t / n the fit is a straight line in n; weights 1 / y^2 make errors relative.
    if len({n for n, _ in points}) < 2:
        raise ValueError("two different lengths are needed")
    rows = [(n, t / n, (n / t) ** 2) for n, t in points]
    total = sum(w for _, _, w in rows)
    mean_n = sum(w * n for n, _, w in rows) / total
    mean_y = sum(w * y for _, y, w in rows) / total
    b = sum(w * (n - mean_n) * (y - mean_y) for n, y, w in rows)
    b /= sum(w * (n - mean_n) ** 2 for n, _, w in rows)
    a = mean_y - b * mean_n
    if b < 0:
        longest = max(points)
        a, b = longest[1] / longest[0], 0.0
    return lambda n: a * n + b * n * n


def exponent(points: Sequence[tuple[int, float]]) -> float:
    """k of the power law t ~ n^k nearest to points (n, t): the slope on log-log paper."""
    logs = [(math.log(n), math.log(t)) for n, t in points]
    mean_x = sum(x for x, _ in logs) / len(logs)
    mean_y = sum(y for _, y in logs) / len(logs)
    spread = sum((x - mean_x) ** 2 for x, _ in logs)
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / spread


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Let torch compute on ``count`` threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
