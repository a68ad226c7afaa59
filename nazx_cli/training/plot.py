"""A run's losses as a picture: SVG, which browsers and Markdown show."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from nazx_cli.training.state import read_log

_WIDTH, _HEIGHT, _MARGIN = 720, 360, 48
_POINTS = 400  # of the training loss, each the mean of some steps
_TRAIN, _HELD, _TEXT = "#8ab4d8", "#c2410c", "#6b7280"

Point = tuple[float, float]


def write_plot(run: Path, target: Path, title: str) -> None:
    """Draw the log of the folder ``run`` into the file ``target``."""
    log = read_log(run)
    train = _thinned([(float(line["step"]), float(line["loss"])) for line in log if "loss" in line])
    held = [(float(line["step"]), float(line["held_out"])) for line in log if "held_out" in line]
    target.write_text(draw(title, train, held), encoding="utf-8")


def draw(title: str, train: Sequence[Point], held: Sequence[Point]) -> str:
    """An SVG of both losses over steps; of the training loss the first tenth may lie above it."""
    settled = train[len(train) // 10 :] or train
    shown = [y for _, y in (*settled, *held)] or [0.0, 1.0]
    low, high = min(shown), max(shown)
    high = high if high > low else low + 1.0
    last = max((x for x, _ in (*train, *held)), default=1.0) or 1.0

    def place(point: Point) -> str:
        x = _MARGIN + (_WIDTH - 2 * _MARGIN) * point[0] / last
        y = _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * (point[1] - low) / (high - low)
        return f"{x:.1f},{max(y, _MARGIN):.1f}"

    def line(points: Sequence[Point], color: str) -> str:
        joined = " ".join(map(place, points))
        return f'<polyline points="{joined}" fill="none" stroke="{color}" stroke-width="1.6"/>'

    def text(x: float, y: float, words: str, anchor: str = "start", color: str = _TEXT) -> str:
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{color}">{escape(words)}</text>'

    bottom, right = _HEIGHT - _MARGIN, _WIDTH - _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<path d="M{_MARGIN} {_MARGIN}V{bottom}H{right}" fill="none" stroke="{_TEXT}"/>',
        line(train, _TRAIN),
        line(held, _HELD),
        text(_MARGIN, 24, title),
        text(_MARGIN - 6, _MARGIN + 4, f"{high:.2f}", "end"),
        text(_MARGIN - 6, bottom, f"{low:.2f}", "end"),
        text(right, bottom + 18, f"step {last:,.0f}", "end"),
        text(right, _MARGIN, "loss trained on", "end", _TRAIN),
        text(right, _MARGIN + 16, "loss held out", "end", _HELD),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _thinned(points: Sequence[Point]) -> list[Point]:
    size = max(1, len(points) // _POINTS)
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]
