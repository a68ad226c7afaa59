"""Log-log plots of the workload ``growth``, by matplotlib where it is installed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

from nazx_cli.bench.growth import FIRST, FURTHER, GROWTH, MEMORY
from nazx_cli.bench.results import Row
from nazx_cli.errors import NazxError

MISSING = "matplotlib is not installed, so nothing is plotted: pip install 'nazx[bench]'"
_PANELS = ((FIRST, "seconds"), (FURTHER, "seconds"), (MEMORY, "bytes"))
_OURS = "nazx"

Line = list[tuple[int, float]]
"""Points (tokens, median) in order of tokens."""


def is_installed() -> bool:
    """Whether matplotlib can be imported."""
    return find_spec("matplotlib") is not None


def write_plots(rows: Sequence[Row], folder: Path) -> list[Path]:
    """``growth.svg`` and ``growth.png`` in ``folder``, which is made if need be, from the rows of
    ``growth`` among ``rows``; nothing where there are none. ``NazxError`` where they cannot be
    written."""
    rows = [row for row in rows if row.workload == GROWTH]
    if not rows:
        return []
    figure = _figure(rows)
    written = [folder / f"{GROWTH}.{kind}" for kind in ("svg", "png")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in written:
            figure.savefig(path, dpi=150)
    except OSError as error:
        raise NazxError(
            f"cannot write into {folder}: {error.strerror or error}", "name another: --plots DIR"
        ) from None
    return written


def lines_of(rows: Sequence[Row], measure: str) -> dict[str, Line]:
    """One line for us and one for each peer, by name."""
    points: dict[str, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if row.measure == measure:
            points[_OURS][row.tokens] = row.ours.median
            if row.theirs is not None:
                points[row.peer][row.tokens] = row.theirs.median
    return {name: sorted(line.items()) for name, line in points.items()}


def _figure(rows: Sequence[Row]) -> Any:
    """Three panels. Without pyplot: that would pick a window system and keep the figure."""
    figure = import_module("matplotlib.figure").Figure(figsize=(13, 4.2), layout="constrained")
    first = rows[0]
    for axes, (measure, unit) in zip(figure.subplots(1, 3), _PANELS, strict=True):
        for marker, (name, line) in zip(
            cycle("os^Dv"), lines_of(rows, measure).items(), strict=False
        ):
            axes.loglog(*zip(*line, strict=True), marker=marker, markersize=4, label=name)
        axes.set(title=measure, xlabel="tokens in the context", ylabel=unit)
        axes.grid(True, which="both", alpha=0.25)
    figure.axes[0].legend()
    figure.suptitle(f"cost growth, {first.dtype}, layout {first.layout}")
    return figure
