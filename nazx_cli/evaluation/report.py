"""Figures of an evaluation: a column for each run, a row for each measure that applies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nazx_cli.evaluation.calibration import Calibration, calibrate
from nazx_cli.evaluation.intervals import Estimate, estimate
from nazx_cli.evaluation.measures import MEASURES, Measure
from nazx_cli.evaluation.records import Record
from nazx_cli.evaluation.runner import Run


@dataclass(frozen=True)
class Column:
    """One run.

    figures      measure by name
    differences  what its score is above the first column's, on the questions that both answered
    groups       by value of the tag that was asked for, the figures of those questions alone
    """

    label: str
    run: str
    questions: int
    documents: int
    figures: Mapping[str, Estimate]
    differences: Mapping[str, Estimate]
    groups: Mapping[str, Mapping[str, Estimate]]
    calibration: Calibration | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "label": self.label,
            "run": self.run,
            "questions": self.questions,
            "documents": self.documents,
            "figures": _as_dict(self.figures),
            "differences": _as_dict(self.differences),
            "groups": {name: _as_dict(figures) for name, figures in self.groups.items()},
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
        }


def make_report(
    answered: Sequence[tuple[Run, Record]], by: str | None = None, seed: int = 0
) -> tuple[Column, ...]:
    """A column for each run that has answers, in their order; ``by`` is a tag's name."""
    grouped: dict[str, list[Record]] = defaultdict(list)
    labels: dict[str, tuple[str, str]] = {}
    for run, record in answered:
        key = f"{run.label} {record.run}"
        labels[key] = (run.label, record.run)
        grouped[key].append(record)
    first = next(iter(grouped.values()), [])
    columns = []
    for key, records in grouped.items():
        groups: dict[str, list[Record]] = defaultdict(list)
        for record in records if by else ():
            groups[(record.tags or {}).get(by or "", "(none)")].append(record)
        columns.append(
            Column(
                *labels[key],
                len(records),
                len({record.story for record in records}),
                _figures(records, seed),
                {} if records is first else _differences(first, records, seed),
                {name: _figures(groups[name], seed) for name in sorted(groups)},
                calibrate(records),
            )
        )
    return tuple(columns)


def rows(columns: Sequence[Column]) -> tuple[Measure, ...]:
    """The measures that some column has; of errors and cuts, only where there were any."""
    found = []
    for measure in MEASURES:
        figures = [c.figures[measure.name] for c in columns if measure.name in c.figures]
        silent = measure.name in ("failed", "cut_off") and not any(f.mean for f in figures)
        if figures and not silent:
            found.append(measure)
    return tuple(found)


def _figures(records: Sequence[Record], seed: int) -> dict[str, Estimate]:
    found = {}
    for measure in MEASURES:
        scored = [(score, r.story) for r in records if (score := measure.score(r)) is not None]
        if scored:
            scores, stories = zip(*scored, strict=True)
            found[measure.name] = estimate(scores, stories, seed)
    return found


def _differences(
    first: Sequence[Record], records: Sequence[Record], seed: int
) -> dict[str, Estimate]:
    """Paired: a question that is hard for both does not widen the interval."""
    own = {(r.story, r.question, r.references): r for r in first}
    pairs = [(own[k], r) for r in records if (k := (r.story, r.question, r.references)) in own]
    found = {}
    for measure in MEASURES:
        scored = [
            (theirs - ours, b.story)
            for a, b in pairs
            if (ours := measure.score(a)) is not None and (theirs := measure.score(b)) is not None
        ]
        if scored:
            scores, stories = zip(*scored, strict=True)
            found[measure.name] = estimate(scores, stories, seed)
    return found


def _as_dict(figures: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: figure.to_dict() for name, figure in figures.items()}
