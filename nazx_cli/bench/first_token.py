"""Workload ``first-token``: InAttention from the ids of a long context to its first new token.

The model has random weights. Rivals run ordinary attention at the same shapes: both sides are
measured at the lengths that a rival can take in within minutes, which shows how the ratio
grows, and longer prefills are extrapolated from those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

from nazx_cli.bench.engine import Engine, Rival, greedy, kernel_of, prefilled
from nazx_cli.bench.random_rivals import random_rivals
from nazx_cli.bench.results import Row, Spread
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.shapes import inattention_config, random_decoder, random_model, zipf_ids
from nazx_cli.bench.timing import Side, alternate, clock, exponent, quadratic_fit
from nazx_cli.engine.language_model import LanguageModel

NAME = "first-token"
CONTEXTS = (100_000, 1_000_000)
LARGER = 100_000  # tokens, for the second model's shapes
LAYOUTS = ("pairs",)
_FURTHER = 5  # tokens after the first

Measured = dict[int, tuple[float, ...]]
"""Seconds of every round by prompt length."""


def run(setup: Setup) -> Iterator[Row]:
    """In the chosen type and in float32: the first token beside the rivals' prefills, how both
    grow, and the time per further token; then larger shapes, ours alone."""
    chosen, *others = setup.dtypes()
    yield from _beside_rivals(setup, chosen, llama_cpp=True)
    for dtype in others:
        yield from _beside_rivals(setup, dtype, llama_cpp=False)
    if setup.settings.larger and not setup.settings.contexts:
        for dtype in (chosen, *others):
            yield from _larger(setup, dtype)


class _Case:
    """One layout and length; ``further`` gathers seconds per further token, run by run."""

    def __init__(self, lm: LanguageModel, count: int) -> None:
        self.lm = lm
        self.ids = zipf_ids(lm.config.vocab_size, count)
        self.further: list[float] = []
        self.first_token()  # a run that does not count
        self.further.clear()

    def first_token(self) -> float:
        """Seconds from the ids to the first new token."""
        seconds, (context, logits) = clock(lambda: prefilled(self.lm, self.ids))
        token = int(logits.argmax())
        more = clock(lambda: greedy(self.lm, context, token, _FURTHER))[0]
        self.further.append(more / _FURTHER)
        return seconds

    def row(self, measure: str, runs: Sequence[float]) -> Row:
        """A row of ours alone."""
        return Row(
            workload=NAME,
            measure=f"{measure}, {self.lm.name}",
            tokens=len(self.ids),
            unit="s",
            dtype=self.lm.dtype,
            ours=Spread(tuple(runs)),
            layout=self.lm.layout,
            kernel=kernel_of(self.lm),
            details={"distinct_tokens": len(torch.unique(self.ids))},
        )


def _beside_rivals(setup: Setup, dtype: torch.dtype, *, llama_cpp: bool) -> Iterator[Row]:
    settings = setup.settings
    config = inattention_config(settings.shapes)
    lengths = settings.peer_lengths
    label = f"{NAME}, {str(dtype).removeprefix('torch.')}"
    setup.note(f"{label}: making random models of {settings.shapes} shapes")
    decoder = random_decoder(config, dtype)
    cases = [
        _Case(random_model(settings.shapes, decoder, layout), count)
        for layout in settings.layouts or LAYOUTS
        for count in dict.fromkeys((*lengths, *(settings.contexts or CONTEXTS)))
    ]
    with random_rivals(setup, config, dtype, max(lengths), llama_cpp=llama_cpp) as rivals:
        sides: list[Side] = [case.first_token for case in cases]
        ids = zipf_ids(config.vocab_size, max(lengths))
        for engine in (rival.engine for rival in rivals if rival.engine):
            engine.prefill(ids[:64])
            sides += [_theirs(engine, ids[:count]) for count in lengths]
        runs = alternate(sides, settings.repeat, warm_up=False, on_round=setup.rounds(label))
    rest = iter(runs[len(cases) :])
    measured = [
        {count: next(rest) for count in lengths} if rival.engine else {} for rival in rivals
    ]
    for case, first in zip(cases, runs, strict=False):
        for rival, theirs in zip(rivals, measured, strict=True):
            yield _first_row(case, first, rival, theirs)
        yield case.row("further token", case.further)
    yield from _growth_rows(cases, runs, rivals, measured)


def _theirs(engine: Engine, ids: Tensor) -> Side:
    return lambda: clock(lambda: engine.prefill(ids))[0]


def _first_row(case: _Case, ours: tuple[float, ...], rival: Rival, measured: Measured) -> Row:
    """The row of the first token beside a rival's prefill, measured or extrapolated."""
    count = len(case.ids)
    own = case.row("first token", ours)
    theirs, notes = None, [rival.note]
    if measured:
        notes.append("" if rival.precision == case.lm.dtype else f"theirs is {rival.precision}")
        theirs = measured.get(count) or extrapolated(measured, count)
        if count not in measured:
            lengths = ", ".join(f"{length:,}" for length in measured)
            notes.append(f"theirs is extrapolated from {lengths} tokens")
    return replace(
        own,
        peer=f"{rival.name} prefill" if rival.engine else rival.name,
        theirs=None if theirs is None else Spread(theirs),
        note="; ".join(note for note in notes if note),
    )


def extrapolated(measured: Measured, count: int) -> tuple[float, ...]:
    """Seconds of a prefill of ``count`` tokens, round by round."""
    rounds = zip(*measured.values(), strict=True)
    return tuple(
        quadratic_fit(list(zip(measured, seconds, strict=True)))(count) for seconds in rounds
    )


def _growth_rows(
    cases: Sequence[_Case],
    runs: Sequence[tuple[float, ...]],
    rivals: Sequence[Rival],
    measured: Sequence[Measured],
) -> Iterator[Row]:
    """How the ratio grows, from the lengths at which both sides were measured."""
    for rival, theirs in zip(rivals, measured, strict=True):
        if len(theirs) < 2:
            continue
        layout = cases[0].lm.layout
        ours = [
            (len(case.ids), median(first))
            for case, first in zip(cases, runs, strict=False)
            if case.lm.layout == layout and len(case.ids) in theirs
        ]
        theirs_k = exponent([(count, median(seconds)) for count, seconds in theirs.items()])
        ours_k = exponent(ours)
        own = cases[0].row("k of ratio ~ N^k", (theirs_k - ours_k,))
        span = f"{min(theirs):,} to {max(theirs):,}"
        yield replace(
            own,
            tokens=max(theirs),
            unit="",
            note=f"how the ratio to {rival.name} grows with N, from {span} tokens",
            details={"our_k": ours_k, "their_k": theirs_k},
        )


def _larger(setup: Setup, dtype: torch.dtype) -> Iterator[Row]:
    shapes = setup.settings.larger
    label = f"{NAME}, {shapes}"
    setup.note(f"{label}: making a random model")
    decoder = random_decoder(inattention_config(shapes), dtype)
    for layout in setup.settings.layouts or LAYOUTS:
        case = _Case(random_model(shapes, decoder, layout), LARGER)
        (runs,) = alternate(
            [case.first_token], setup.settings.repeat, warm_up=False, on_round=setup.rounds(label)
        )
        yield case.row("first token", runs)
        yield case.row("further token", case.further)
