"""Whether a model is right as often as it is sure: accuracy by confidence.

The expected calibration error is the mean, over answers, of the distance between accuracy and
mean confidence in an answer's bin (Guo et al., "On Calibration of Modern Neural Networks", 2017,
eq. 3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nazx_cli.evaluation.measures import right
from nazx_cli.evaluation.records import Record

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Answers with a confidence from ``low`` up to ``high``: how many, how sure and how right
    they are in the mean."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Bins that hold an answer, least sure first, and the expected calibration error."""

    bins: tuple[Bin, ...]
    error: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"expected_error": self.error, "bins": [vars(each) for each in self.bins]}


def calibrate(records: Iterable[Record], bins: int = BINS) -> Calibration | None:
    """The curve of the answers that tell a confidence; None where there is none."""
    held: list[list[tuple[float, float]]] = [[] for _ in range(bins)]
    for record in records:
        if record.confidence is not None and (score := right(record)) is not None:
            sure = min(max(record.confidence, 0.0), 1.0)
            held[min(int(sure * bins), bins - 1)].append((sure, score))
    total = sum(map(len, held))
    if not total:
        return None
    found = []
    for at, pairs in enumerate(held):
        if pairs:
            sure = sum(each for each, _ in pairs) / len(pairs)
            accuracy = sum(score for _, score in pairs) / len(pairs)
            found.append(Bin(at / bins, (at + 1) / bins, len(pairs), sure, accuracy))
    error = sum(each.count * abs(each.accuracy - each.confidence) for each in found) / total
    return Calibration(tuple(found), error)
