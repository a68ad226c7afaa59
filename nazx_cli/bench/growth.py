"""Workloads ``first-token`` and ``growth``: what a long context costs from its ids on, beside
rivals with ordinary attention at the same shapes. All have random weights.

``first-token`` measures both sides at the lengths that a rival can take in within minutes, which
shows how the ratio grows, and extrapolates longer prefills from those. ``growth`` adds further
tokens and memory, for plots by matplotlib, of rivals as far as they can be measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from itertools import cycle
from math import log
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import torch
from torch import Tensor

from nazx_cli.bench.models import Engine, Ours, Rival, row_of, zipf_ids
from nazx_cli.bench.results import Row, Spread, clock, one, timed
from nazx_cli.bench.setup import Setup
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.errors import NazxError

FIRST_TOKEN, GROWTH = "first-token", "growth"
CONTEXTS = (100_000, 1_000_000)
LARGER = 100_000  # tokens, for the second model's shapes
GROWING = (1000, 2000, 4000, 8000, 16_000, 32_000, 100_000, 320_000, 1_000_000)
LAYOUTS = ("pairs",)
FIRST, FURTHER, MEMORY = "time to first token", "time per token", "memory of the context"
_FURTHER = 5  # tokens after the first
Measured = dict[int, tuple[float, ...]]
"""Seconds of every round by prompt length."""
NO_PLOTS = "matplotlib is not installed, so nothing is plotted: pip install 'nazx[bench]'"
_PANELS = ((FIRST, "seconds"), (FURTHER, "seconds"), (MEMORY, "bytes"))
_OURS = "nazx"
Line = list[tuple[int, float]]
"""Points (tokens, median) in order of tokens."""


@dataclass
class _Runner:
    """An engine at one length. ``further`` gathers seconds per further token, run by run, and
    ``memory`` is what its cache holds after a run."""

    engine: Engine
    ids: Tensor
    further: list[float] = field(default_factory=list)
    memory: int = 0

    def warmed(self) -> _Runner:
        """The same after a run that does not count."""
        self.first_token()
        self.further.clear()
        return self

    def first_token(self) -> float:
        """Seconds from the ids to the first new token."""
        seconds, (cache, logits) = clock(lambda: self.engine.prefill(self.ids))
        token = int(logits.argmax())
        more = clock(lambda: self.engine.decode(cache, token, _FURTHER))[0]
        self.further.append(more / _FURTHER)
        self.memory = self.engine.cache_bytes(cache)
        return seconds


class _Case(_Runner):
    """Our side at one length, and its rows of ``first-token``."""

    def __init__(self, lm: LanguageModel, count: int) -> None:
        super().__init__(Ours(lm), zipf_ids(lm.config.vocab_size, count))
        self.lm = lm
        self.warmed()

    def row(self, measure: str, runs: Sequence[float]) -> Row:
        """A row of ours alone."""
        details = {"distinct_tokens": len(torch.unique(self.ids))}
        label = f"{measure}, {self.lm.name}"
        spread = Spread(tuple(runs))
        return row_of(self.lm, FIRST_TOKEN, label, len(self.ids), spread, details=details)

    def row_beside(self, ours: Sequence[float], rival: Rival, measured: Measured) -> Row:
        """The first token beside a rival's prefill, measured or extrapolated."""
        own, count = self.row("first token", ours), len(self.ids)
        if not measured:
            return replace(own, peer=rival.name, note=rival.note)
        notes = [rival.note_beside(self.lm.dtype)]
        if count not in measured:
            lengths = ", ".join(f"{length:,}" for length in measured)
            notes.append(f"theirs is extrapolated from {lengths} tokens")
        theirs = Spread(measured.get(count) or extrapolated(measured, count))
        note = "; ".join(filter(None, notes))
        return replace(own, peer=f"{rival.name} prefill", theirs=theirs, note=note)


def first_token(setup: Setup) -> Iterator[Row]:
    """In the chosen type and in float32: the first token beside the rivals' prefills, how both
    grow, and the time per further token; then larger shapes, ours alone."""
    for number, dtype in enumerate(setup.dtypes()):
        yield from _beside_rivals(setup, dtype, llama_cpp=number == 0)
    if setup.settings.larger and not setup.settings.contexts:
        for dtype in setup.dtypes():
            for lm in setup.random_models(LAYOUTS, dtype, setup.settings.larger):
                case = _Case(lm, LARGER)
                label = f"{FIRST_TOKEN}, {lm.name}"
                (runs,) = setup.alternate(label, [case.first_token], warm_up=False)
                yield case.row("first token", runs)
                yield case.row("further token", case.further)


def _beside_rivals(setup: Setup, dtype: torch.dtype, *, llama_cpp: bool) -> Iterator[Row]:
    settings, lengths = setup.settings, setup.settings.peer_lengths
    models = setup.random_models(LAYOUTS, dtype)
    counts = dict.fromkeys((*lengths, *(settings.contexts or CONTEXTS)))
    cases = [_Case(lm, count) for lm in models for count in counts]
    config = models[0].config
    with setup.random_rivals(config, dtype, llama_cpp=llama_cpp) as rivals:
        sides = [case.first_token for case in cases]
        ids = zipf_ids(config.vocab_size, max(lengths))
        for engine in (rival.engine for rival in rivals if rival.engine):
            engine.prefill(ids[:64])
            sides += [timed(engine.prefill, ids[:count]) for count in lengths]
        runs = setup.alternate(f"{FIRST_TOKEN}, {models[0].dtype}", sides, warm_up=False)
    rest = iter(runs[len(cases) :])
    measured = [
        {count: next(rest) for count in lengths} if rival.engine else {} for rival in rivals
    ]
    for case, first in zip(cases, runs, strict=False):
        for rival, theirs in zip(rivals, measured, strict=True):
            yield case.row_beside(first, rival, theirs)
        yield case.row("further token", case.further)
    ours = dict(zip(counts, runs, strict=False))  # of the first layout
    for rival, theirs in zip(rivals, measured, strict=True):
        if len(theirs) > 1:
            yield _ratio_row(cases[0], ours, rival, theirs)


def _ratio_row(case: _Case, ours: Measured, rival: Rival, theirs: Measured) -> Row:
    """How the ratio grows, from the lengths at which both sides were measured."""
    their_k = exponent([(count, median(seconds)) for count, seconds in theirs.items()])
    our_k = exponent([(count, median(ours[count])) for count in theirs])
    span = f"{min(theirs):,} to {max(theirs):,}"
    return replace(
        case.row("k of ratio ~ N^k", (their_k - our_k,)),
        tokens=max(theirs),
        unit="",
        note=f"how the ratio to {rival.name} grows with N, from {span} tokens",
        details={"our_k": our_k, "their_k": their_k},
    )


def growth(setup: Setup) -> Iterator[Row]:
    """For each length three rows for each rival; ours alone past the rivals' longest."""
    lengths = setup.settings.peer_lengths
    lm, *_ = setup.random_models(LAYOUTS, setup.dtype)
    with setup.random_rivals(lm.config, setup.dtype) as rivals:
        for rival in rivals:
            if rival.engine is None:
                setup.note(f"{GROWTH}: {rival.note}")
        for count in sorted({*lengths, *(setup.settings.contexts or GROWING)}):
            ids = zipf_ids(lm.config.vocab_size, count)
            ours = _Runner(Ours(lm), ids).warmed()
            near = [each for each in rivals if each.engine and count <= max(lengths)]
            theirs = [_Runner(rival.engine, ids) for rival in near if rival.engine]
            sides = [runner.first_token for runner in (ours, *theirs)]
            runs = setup.alternate(f"{GROWTH}, {count:,} tokens", sides, warm_up=False)
            spreads = [_spreads(*pair) for pair in zip((ours, *theirs), runs, strict=True)]
            for at, rival in enumerate(near or [Rival("")], 1):
                for measure, spread in spreads[0].items():
                    unit = "bytes" if measure == MEMORY else "s"
                    row = row_of(lm, GROWTH, measure, count, spread, unit=unit, peer=rival.name)
                    beside = spreads[at][measure] if near else None
                    yield replace(row, theirs=beside, note=rival.note_beside(lm.dtype))


def _spreads(runner: _Runner, firsts: tuple[float, ...]) -> dict[str, Spread]:
    """A runner's figures by what they measure."""
    further = Spread(tuple(runner.further))
    return {FIRST: Spread(firsts), FURTHER: further, MEMORY: one(runner.memory)}


def extrapolated(measured: Measured, count: int) -> tuple[float, ...]:
    """Seconds of a prefill of ``count`` tokens, round by round."""
    rounds = zip(*measured.values(), strict=True)
    return tuple(
        quadratic_fit(list(zip(measured, seconds, strict=True)))(count) for seconds in rounds
    )


def quadratic_fit(points: Sequence[tuple[int, float]]) -> Callable[[float], float]:
    """t(n) = a n + b n^2 nearest to measured points (n, seconds), in relative error.

    The two terms are those of a prefill: projections cost n, attention n^2. Two points are met
    exactly. Where noise makes b negative, growth is taken as linear from the longest point,
    which keeps t(n) from falling. At least two different lengths.
    """
    if len({n for n, _ in points}) < 2:
        raise ValueError("two different lengths are needed")
    # Each point's equation is divided by its t, which makes errors relative.
    terms = torch.tensor([[n / t, n * n / t] for n, t in points], dtype=torch.float64)
    a, b = torch.linalg.lstsq(terms, torch.ones(len(points), 1, dtype=torch.float64))[0].flatten()
    if b < 0:
        n, t = max(points)
        return lambda count: t / n * count
    return lambda n: float(a * n + b * n * n)


def exponent(points: Sequence[tuple[int, float]]) -> float:
    """k of the power law t ~ n^k nearest to points (n, t): the slope on log-log paper."""
    return linear_regression([log(n) for n, _ in points], [log(t) for _, t in points]).slope


def can_plot() -> bool:
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
