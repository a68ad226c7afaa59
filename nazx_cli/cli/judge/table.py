"""The tables of ``nazx eval``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nazx_cli.evaluation.approximations.base import APART, LEAST, MASS, READ, SAME
from nazx_cli.evaluation.approximations.cost import FAR, Cost
from nazx_cli.evaluation.calibration import Calibration
from nazx_cli.evaluation.intervals import Estimate
from nazx_cli.evaluation.measures import Measure
from nazx_cli.evaluation.perplexity import Range, Stretch, differences, summarize
from nazx_cli.evaluation.probes import Outcome, heat_map
from nazx_cli.evaluation.report import Column, rows
from nazx_cli.ui.phrases import counted, size_text
from nazx_cli.ui.terminal.tables import Table

if TYPE_CHECKING:
    from nazx_cli.ui.terminal.screen import Screen

_LESS = " (less is better)"
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
    screen.line(_figures(measures, [column.figures for column in columns]))
    if len(columns) > 1:
        _show_differences(columns, measures, screen)
    if by is not None:
        _show_groups(columns, measures, by, screen)
    for number, column in enumerate(columns, 1):
        if column.calibration is not None:
            _show_calibration(number, column.calibration, screen)


def _headline(columns: Sequence[Column]) -> str:
    questions, documents = columns[0].questions, columns[0].documents
    text = f"{counted(questions, 'question')} from {counted(documents, 'document')}; "
    if documents == 1:
        return text + "one document tells no interval"
    rough = ", rough with so few documents" if documents < _FEW else ""
    return f"{text}in brackets the 95 % interval over documents{rough}"


def _figures(measures: Sequence[Measure], figures: Sequence[Mapping[str, Estimate]]) -> Table:
    """A row for each measure, a column for each contestant."""
    heading = ("", *(f"[{at + 1}]" for at in range(len(figures))), "questions")
    rows = []
    for measure in measures:
        cells = [_cell(each.get(measure.name), measure.unit) for each in figures]
        counts = {each[measure.name].questions for each in figures if measure.name in each}
        if counts:
            span = f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,}-{max(counts):,}"
            rows.append((measure.title + (_LESS if measure.lower else ""), *cells, span))
    return Table(rows, heading, right=(len(heading) - 1,))


def _show_differences(
    columns: Sequence[Column], measures: Sequence[Measure], screen: Screen
) -> None:
    shared = [column.differences for column in columns[1:]]
    if not any(shared):
        return
    screen.line(
        "\ndifference to [1] on the questions that both answered; 0 in brackets: maybe chance"
    )
    heading = ("", *(f"[{at + 2}]" for at in range(len(shared))))
    table = []
    for measure in measures:
        found = [each[measure.name] for each in shared if measure.name in each]
        if any(each.mean or each.low is not None for each in found):
            cells = [_cell(each.get(measure.name), measure.unit, signed=True) for each in shared]
            table.append((measure.title, *cells))
    screen.line(Table(table, heading))


def _show_groups(
    columns: Sequence[Column], measures: Sequence[Measure], by: str, screen: Screen
) -> None:
    for name in sorted({name for column in columns for name in column.groups}):
        figures = [column.groups.get(name, {}) for column in columns]
        screen.line(f"\n{by}: {name}")
        screen.line(_figures(measures, figures))


def _show_calibration(number: int, calibration: Calibration, screen: Screen) -> None:
    screen.line(
        f"\n[{number}] how sure and how right: expected calibration error {calibration.error:.3f}"
    )
    table = [
        (
            f"{each.low:.1f}-{each.high:.1f}",
            f"{each.count:,}",
            f"{each.confidence:.2f}",
            f"{each.accuracy:.2f}",
        )
        for each in calibration.bins
    ]
    screen.line(Table(table, ("confidence", "answers", "mean", "right"), right=(1, 2, 3)))


def _cell(figure: Estimate | None, unit: str, *, signed: bool = False) -> str:
    if figure is None:
        return "-"
    sign = "+" if signed else ""
    digits = 3 if not unit else 1
    text = f"{figure.mean:{sign}.{digits}f}" + (f" {unit}" if unit else "")
    if figure.low is None or figure.high is None:
        return text
    return f"{text} ({figure.low:{sign}.{digits}f}..{figure.high:{sign}.{digits}f})"


def by_model(stretches: Sequence[Stretch], *, names: bool = False) -> dict[str, tuple[Range, ...]]:
    """Perplexity by position of each model, in their order; or of ``names``, by distance."""
    models = dict.fromkeys(stretch.model for stretch in stretches)
    return {
        model: summarize([stretch for stretch in stretches if stretch.model == model], names=names)
        for model in models
    }


def show_perplexity(stretches: Sequence[Stretch], screen: Screen) -> None:
    """A row for each range of positions, a column for each model; then likewise of names."""
    if not stretches:
        return
    texts = len({stretch.text for stretch in stretches})
    count = texts if texts > 1 else len({stretch.number for stretch in stretches})
    over = "texts" if texts > 1 else "stretches of the text"
    rough = f", rough with {count} of them" if count < _FEW else ""
    screen.line(
        f"perplexity of {counted(texts, 'text')} by position, less is better; in brackets the "
        f"95 % interval over {over}{rough}"
    )
    for number, model in enumerate(dict.fromkeys(stretch.model for stretch in stretches), 1):
        screen.line(f"[{number}] {model}")
    _show_ranges(stretches, "positions", screen)
    if any(stretch.names for stretch in stretches):
        screen.line("\nnames that the stretch has not said before, by tokens to their last mention")
        _show_ranges(stretches, "distance", screen, names=True)


def _show_ranges(
    stretches: Sequence[Stretch], title: str, screen: Screen, *, names: bool = False
) -> None:
    found = by_model(stretches, names=names)
    screen.line("")
    heading = (title, *(f"[{at + 1}]" for at in range(len(found))), "tokens")
    table = []
    starts = sorted({each.start for ranges in found.values() for each in ranges})
    for start in starts:
        row = {
            m: next((r for r in ranges if r.start == start), None) for m, ranges in found.items()
        }
        first = next(each for each in row.values() if each is not None)
        cells = [_perplexity(each) for each in row.values()]
        table.append((f"{max(1, start):,}-{first.stop - 1:,}", *cells, f"{first.tokens:,}"))
    screen.line(Table(table, heading, right=(len(heading) - 1,)))
    numbers = {model: f"[{number}]" for number, model in enumerate(found, 1)}
    for each in differences(stretches, names=names):
        nats = each.nats
        interval = "" if nats.low is None else f" ({nats.low:+.4f}..{nats.high:+.4f})"
        pair = f"{numbers[each.model]} - {numbers[each.other]}"
        screen.line(f"{pair}: {nats.mean:+.4f} nats a token{interval}")


def _perplexity(found: Range | None) -> str:
    if found is None:
        return "-"
    figure = found.perplexity
    if figure.low is None or figure.high is None:
        return f"{figure.mean:.2f}"
    return f"{figure.mean:.2f} ({figure.low:.2f}..{figure.high:.2f})"


def show_costs(costs: Sequence[Cost], screen: Screen) -> None:
    """A row for each way of attending: what it holds, what it reads, how long it took here."""
    if not costs:
        return
    length = costs[0].length
    screen.line(
        "\nbytes by formula; keys read, of those before a query, and their part of the attention; "
        "positions where the likeliest token is exact attention's, and nats from it (KL); seconds "
        "are those of arithmetic made for comparison"
    )
    held = ("a token", f"{length:,} tokens", f"{FAR:,}")
    heading = ("", *held, "keys", "attention", "99 % on", "same", "KL", "s")
    rows = []
    for each in costs:
        shares = [each.figures.get(name) for name in (READ, MASS, LEAST, SAME)]
        apart = each.figures.get(APART)
        rows.append(
            (
                each.model,
                f"{each.held / each.length:,.0f} B",
                size_text(each.held),
                size_text(each.held_far),
                *("-" if share is None else f"{share:.1%}" for share in shares),
                "-" if apart is None else f"{apart:.4f}",
                "-" if each.seconds is None else f"{each.seconds:.1f}",
            )
        )
    screen.line(Table(rows, heading, right=tuple(range(1, len(heading)))))


def probe_maps(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The heat map of each probe of each model, for JSON."""
    return [
        {
            "model": model,
            "probe": probe,
            "trials": len(some),
            "map": [
                {"length": length, "depth": depth, "right": right}
                for (length, depth), right in heat_map(some).items()
            ],
        }
        for (model, probe), some in _by_probe(outcomes).items()
    ]


def show_probes(outcomes: Sequence[Outcome], screen: Screen) -> None:
    """A table for each probe of each model: lengths down, depths across."""
    for (model, probe), some in _by_probe(outcomes).items():
        found = heat_map(some)
        depths = sorted({depth for _, depth in found})
        screen.line("")
        screen.line(f"{probe}, {model}: % right by length and depth, of {len(some):,} trials")
        table = [
            (f"{length:,}", *(f"{100 * found[length, depth]:.0f}" for depth in depths))
            for length in dict.fromkeys(length for length, _ in found)
        ]
        heading = ("tokens", *(f"{depth:.0%}" for depth in depths))
        screen.line(Table(table, heading, right=tuple(range(len(heading)))))


def _by_probe(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], list[Outcome]]:
    found: dict[tuple[str, str], list[Outcome]] = {}
    for each in outcomes:
        found.setdefault((each.model, each.probe), []).append(each)
    return found
