"""The tables of ``nazx eval``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nazx_cli.evaluation.calibration import Calibration
from nazx_cli.evaluation.intervals import Estimate
from nazx_cli.evaluation.measures import Measure
from nazx_cli.evaluation.perplexity import Range, Stretch, summarize
from nazx_cli.evaluation.report import Column, rows
from nazx_cli.ui.phrases import columns as in_columns

if TYPE_CHECKING:
    from nazx_cli.ui.screen import Screen

_LESS = " (less is better)"
_COLUMN = 26  # cells of a figure with its interval
_FEW = 10  # documents: with fewer, an interval is told to be rough


def show(columns: Sequence[Column], screen: Screen, by: str | None = None) -> None:
    """The figures on stdout, what they mean beside them."""
    if not columns:
        screen.note("no question was answered")
        return
    screen.line(_headline(columns))
    for number, column in enumerate(columns, 1):
        screen.line(f"[{number}] {column.label}")
    measures = rows(columns)
    screen.line("")
    _show_figures(measures, [column.figures for column in columns], screen)
    if len(columns) > 1:
        _show_differences(columns, measures, screen)
    if by is not None:
        _show_groups(columns, measures, by, screen)
    for number, column in enumerate(columns, 1):
        if column.calibration is not None:
            _show_calibration(number, column.calibration, screen)


def _headline(columns: Sequence[Column]) -> str:
    questions, documents = columns[0].questions, columns[0].documents
    text = f"{_count(questions, 'question')} from {_count(documents, 'document')}; "
    if documents == 1:
        return text + "one document tells no interval"
    rough = ", rough with so few documents" if documents < _FEW else ""
    return f"{text}in brackets the 95 % interval over documents{rough}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _show_figures(
    measures: Sequence[Measure], figures: Sequence[Mapping[str, Estimate]], screen: Screen
) -> None:
    """A row for each measure; in a terminal as many columns side by side as it has room for."""
    at_once = len(figures)
    if screen.out.isatty():
        titles = max((len(measure.title) for measure in measures), default=0) + len(_LESS)
        room = shutil.get_terminal_size().columns - titles - len("  questions")
        at_once = max(1, room // _COLUMN)
    for first in range(0, len(figures), at_once):
        if first:
            screen.line("")
        screen.line(_figures(measures, figures[first : first + at_once], first + 1))


def _figures(
    measures: Sequence[Measure], figures: Sequence[Mapping[str, Estimate]], first: int
) -> str:
    head = ["", *(f"[{first + at}]" for at in range(len(figures))), "questions"]
    table = [head]
    for measure in measures:
        cells = [_cell(each.get(measure.name), measure.unit) for each in figures]
        counts = {each[measure.name].questions for each in figures if measure.name in each}
        if counts:
            span = f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,}-{max(counts):,}"
            table.append([measure.title + (_LESS if measure.lower else ""), *cells, span])
    return in_columns(table, right=(len(head) - 1,))


def _show_differences(
    columns: Sequence[Column], measures: Sequence[Measure], screen: Screen
) -> None:
    shared = [column.differences for column in columns[1:]]
    if not any(shared):
        return
    screen.line(
        "\ndifference to [1] on the questions that both answered; 0 in brackets: maybe chance"
    )
    table = [["", *(f"[{at + 2}]" for at in range(len(shared)))]]
    for measure in measures:
        found = [each[measure.name] for each in shared if measure.name in each]
        if any(each.mean or each.low is not None for each in found):
            cells = [_cell(each.get(measure.name), measure.unit, signed=True) for each in shared]
            table.append([measure.title, *cells])
    screen.line(in_columns(table))


def _show_groups(
    columns: Sequence[Column], measures: Sequence[Measure], by: str, screen: Screen
) -> None:
    for name in sorted({name for column in columns for name in column.groups}):
        figures = [column.groups.get(name, {}) for column in columns]
        screen.line(f"\n{by}: {name}")
        _show_figures(measures, figures, screen)


def _show_calibration(number: int, calibration: Calibration, screen: Screen) -> None:
    screen.line(
        f"\n[{number}] how sure and how right: expected calibration error {calibration.error:.3f}"
    )
    table = [["confidence", "answers", "mean", "right"]]
    for each in calibration.bins:
        table.append(
            [
                f"{each.low:.1f}-{each.high:.1f}",
                f"{each.count:,}",
                f"{each.confidence:.2f}",
                f"{each.accuracy:.2f}",
            ]
        )
    screen.line(in_columns(table, right=(1, 2, 3)))


def _cell(figure: Estimate | None, unit: str, *, signed: bool = False) -> str:
    if figure is None:
        return "-"
    sign = "+" if signed else ""
    digits = 3 if not unit else 1
    text = f"{figure.mean:{sign}.{digits}f}" + (f" {unit}" if unit else "")
    if figure.low is None or figure.high is None:
        return text
    return f"{text} ({figure.low:{sign}.{digits}f}..{figure.high:{sign}.{digits}f})"


def by_model(stretches: Sequence[Stretch]) -> dict[str, tuple[Range, ...]]:
    """Perplexity by position of each model, in their order."""
    models = dict.fromkeys(stretch.model for stretch in stretches)
    return {
        model: summarize([stretch for stretch in stretches if stretch.model == model])
        for model in models
    }


def show_perplexity(stretches: Sequence[Stretch], screen: Screen) -> None:
    """A row for each range of positions, a column for each model."""
    if not stretches:
        return
    found = by_model(stretches)
    texts = len({stretch.text for stretch in stretches})
    count = texts if texts > 1 else len({stretch.number for stretch in stretches})
    over = "texts" if texts > 1 else "stretches of the text"
    rough = f", rough with {count} of them" if count < _FEW else ""
    screen.line(
        f"perplexity of {_count(texts, 'text')} by position, less is better; in brackets the "
        f"95 % interval over {over}{rough}"
    )
    for number, model in enumerate(found, 1):
        screen.line(f"[{number}] {model}")
    screen.line("")
    table = [["positions", *(f"[{at + 1}]" for at in range(len(found))), "tokens"]]
    starts = sorted({each.start for ranges in found.values() for each in ranges})
    for start in starts:
        row = {
            m: next((r for r in ranges if r.start == start), None) for m, ranges in found.items()
        }
        first = next(each for each in row.values() if each is not None)
        cells = [_perplexity(each) for each in row.values()]
        table.append([f"{max(1, start):,}-{first.stop - 1:,}", *cells, f"{first.tokens:,}"])
    screen.line(in_columns(table, right=(len(table[0]) - 1,)))


def _perplexity(found: Range | None) -> str:
    if found is None:
        return "-"
    figure = found.perplexity
    if figure.low is None or figure.high is None:
        return f"{figure.mean:.2f}"
    return f"{figure.mean:.2f} ({figure.low:.2f}..{figure.high:.2f})"
