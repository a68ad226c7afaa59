"""Figures: how they are taken, side by side in turns; what is told of them; and where they were
taken. A report is written as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, TypeVar

import torch

from nazx_cli import __version__
from nazx_cli.checkpoint.atomic import write_whole
from nazx_cli.checkpoint.load import resolve_dtype
from nazx_cli.errors import NazxError
from nazx_cli.kernels.processor import processor_name

_T = TypeVar("_T")
_PACKAGES = ("nazx", "torch", "transformers", "llama-cpp-python")

Side = Callable[[], float]
"""Does one run, preparing whatever it needs, and returns the seconds that count."""


def clock(work: Callable[[], _T]) -> tuple[float, _T]:
    """Seconds that ``work`` takes, and what it returns."""
    start = perf_counter()
    value = work()
    return perf_counter() - start, value


def timed(work: Callable[..., object], *arguments: Any) -> Side:
    """A side all of whose work counts."""
    return lambda: clock(lambda: work(*arguments))[0]


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
    """Median of theirs / ours round by round; None where the two were not run in rounds, or where
    a figure of ours could not be had (0)."""
    if not ours or len(ours) != len(theirs) or not all(ours):
        return None
    return median(b / a for a, b in zip(ours, theirs, strict=True))


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Let torch compute on ``count`` threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Spread:
    """The figures of one side, in the order they were taken."""

    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return float(median(self.runs))

    @property
    def low(self) -> float:
        """The least."""
        return min(self.runs)

    @property
    def high(self) -> float:
        """The greatest."""
        return max(self.runs)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        figures = {"median": self.median, "low": self.low, "high": self.high}
        return {**figures, "runs": list(self.runs)}


def one(value: float) -> Spread:
    """A figure that is taken once."""
    return Spread((float(value),))


@dataclass(frozen=True)
class Row:
    """One figure of ours, with a peer's beside it where there is one.

    ``tokens`` is the context's length, ``unit`` s (seconds), bytes, or "" for plain numbers.
    ``theirs`` None with a ``peer`` named means that the peer could not be run; ``note`` says
    why. ``kernel`` is ``compiled`` or ``portable`` where a memory layout
    attended. ``details`` are further figures; a name that ends in ``_seconds`` or ``_bytes`` gives
    the unit.
    """

    workload: str
    measure: str
    tokens: int
    unit: str
    dtype: str
    ours: Spread
    layout: str = ""
    kernel: str = ""
    peer: str = ""
    theirs: Spread | None = None
    note: str = ""
    details: Mapping[str, float | int] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Their median over ours: how many times less ours takes."""
        if self.theirs is None or not self.ours.median:
            return None
        return self.theirs.median / self.ours.median

    @property
    def paired_ratio(self) -> float | None:
        """Median of the ratios round by round."""
        return None if self.theirs is None else paired_ratio(self.ours.runs, self.theirs.runs)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **vars(self),
            "ours": self.ours.to_dict(),
            "theirs": None if self.theirs is None else self.theirs.to_dict(),
            "ratio": self.ratio,
            "paired_ratio": self.paired_ratio,
            "details": dict(self.details),
        }


@dataclass(frozen=True)
class Environment:
    """Where figures were measured; ``versions`` has "" for what is not installed."""

    device: str
    cpu: str
    threads: int
    dtype: str
    versions: Mapping[str, str]

    @classmethod
    def current(cls, dtype: str, device: str = "cpu") -> Environment:
        """This process on this machine; ``dtype`` auto is told by what it comes to."""
        held = str(resolve_dtype(dtype, torch.device(device))).removeprefix("torch.")
        versions = {"python": platform.python_version()}
        versions |= {name: version_of(name) for name in _PACKAGES}
        # NazX run from its source is not installed, and knows its own.
        versions["nazx"] = versions["nazx"] or __version__
        return cls(device, processor_name(), torch.get_num_threads(), held, versions)


@dataclass(frozen=True)
class Report:
    """Everything of one run; not ``complete`` where it was interrupted."""

    environment: Environment
    rows: Sequence[Row]
    complete: bool = True

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [row.to_dict() for row in self.rows]
        return {"environment": asdict(self.environment), "complete": self.complete, "rows": rows}


def write_report(report: Report, path: Path) -> None:
    """Write ``report`` as JSON to ``path``, whole or not at all."""
    try:
        write_whole(path, json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise NazxError(
            f"cannot write {path}: {error.strerror or error}", "name a file you may write to"
        ) from None


def version_of(package: str) -> str:
    """The installed version of ``package``, or nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
