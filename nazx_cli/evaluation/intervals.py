"""How sure a mean is: bootstrap over documents, whose questions are no independent draws.

Documents are drawn with replacement as often as there are documents, each with all of its
questions (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; clusters as in Davison
and Hinkley, 1997, section 3.8); the interval holds the middle of the means that come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over questions with its interval.

    ``low`` and ``high`` are None for one document, which tells no spread, and where all scores
    are the same: drawing them again would give an interval of no width, as if that were certain.
    """

    mean: float
    low: float | None
    high: float | None
    questions: int
    documents: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "questions": self.questions,
            "documents": self.documents,
        }


def estimate(scores: Sequence[float], documents: Sequence[str], seed: int = 0) -> Estimate:
    """The mean of ``scores`` (one at least), each of the document beside it."""
    means, count = bootstrap_means(scores, documents, seed)
    tells = count > 1 and min(scores) < max(scores)
    low, high = _middle(means) if tells else (None, None)
    return Estimate(float(np.mean(scores)), low, high, len(scores), count)


def bootstrap_means(
    scores: Sequence[float], documents: Sequence[str], seed: int = 0, draws: int = DRAWS
) -> tuple[NDArray[np.float64], int]:
    """(draws,) means of drawn documents, and the number of documents.

    The order of questions and documents' names make no difference to what is drawn.
    """
    names, at = np.unique(np.asarray(documents, dtype=str), return_inverse=True)
    count = len(names)
    sums = np.bincount(at, weights=np.asarray(scores, np.float64), minlength=count)
    sizes = np.bincount(at, minlength=count).astype(np.float64)
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), draws)
    means: NDArray[np.float64] = (times @ sums) / (times @ sizes)  # (draws, D) @ (D,)
    return means, count


def _middle(means: NDArray[np.float64]) -> tuple[float, float]:
    edge = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(means, [edge, 100 - edge])
    return float(low), float(high)
