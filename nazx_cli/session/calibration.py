"""How sure an answer is, and when the document does not say.

How likely an answer is right is told by a logistic model of what is known about it beside the
others: how sure the model was that its passages answer at all, and of its words; the part's rank;
whether other parts say the same; whether the passage speaks of what is asked. Its weights are
fitted on questions held out from training (``training.tuning.calibrating``) and kept in the
adapter's config as its ``choice``, since another adapter is sure of other things.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nazx_cli.reading.words import QUESTION_WORDS, STOP_WORDS, stem, words

if TYPE_CHECKING:
    from nazx_cli.session.parts import PartAnswer

FEATURES = (
    "constant",
    "opens",  # log-probability that the passages answer
    "opens_beside",  # less that of the surest other part
    "stands",  # 1 for the part that is the surest
    "mean",  # log-probability of the answer's tokens, their mean
    "least",  # and that of the least likely one
    "rank",  # of the part: 0 for the best passages together, 1 for the best one
    "agreed",  # how alike the most alike other answer is, times its chance of being one
    "asked",  # share of the question's words that the cited passage has
    "echo",  # share of the answer's words that the question has
)
"""What an answer is judged by, each a number of about unit size."""
UNSURE = 0.5
"""Confidence below which an answer is as likely wrong: what else was said is then told too."""
GUESSED = 0.15
"""Confidence below which an answer is next to never right."""
_SAME = 0.5  # how alike two answers are that say the same
_FLOOR = -6.0  # a log-probability below is as good as this one
_DEFAULT: Mapping[str, float] = dict.fromkeys(FEATURES, 0.0) | {
    "opens": 1.0,
    "mean": 1.0,
    "rank": -0.1,
}


@dataclass(frozen=True)
class Calibration:
    """``weights`` of the features; answers are held back as not said where no part finds it
    likelier than ``refuse`` that its passages answer, or ``refuse_one`` where there is one part:
    of several the surest is surer."""

    weights: Mapping[str, float] = field(default_factory=lambda: _DEFAULT)
    refuse: float = 0.1
    refuse_one: float = 0.1

    @classmethod
    def of(cls, notes: Mapping[str, Any]) -> Calibration:
        """That of an adapter's notes; the default where they hold none that makes sense."""
        try:
            own = notes["choice"]
            weights = {name: float(own["weights"].get(name, 0.0)) for name in FEATURES}
            return cls(weights, float(own["refuse"]), float(own["refuse_one"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()

    def to_json(self) -> dict[str, Any]:
        """As an adapter's notes hold it."""
        bars = {"refuse": self.refuse, "refuse_one": self.refuse_one}
        return {"weights": dict(self.weights), **bars}

    def confidences(self, answers: Sequence[PartAnswer], question: str) -> list[float]:
        """The chance, 0 to 1, of each answer to be right."""
        return [
            1 / (1 + math.exp(-sum(self.weights[name] * row[name] for name in FEATURES)))
            for row in features(answers, question)
        ]

    def says_not(self, answers: Sequence[PartAnswer]) -> bool:
        """Whether none of ``answers`` is likely enough to be one."""
        bar = self.refuse if len(answers) > 1 else self.refuse_one
        return max(math.exp(answer.opens) for answer in answers) < bar


def is_unsure(confidence: float | None) -> bool:
    """Whether an answer of that confidence is as likely wrong; not where none is told."""
    return bool(doubt(confidence))


def doubt(confidence: float | None) -> str:
    """How unsure an answer of that confidence is, in a word or two; empty where it is not."""
    if confidence is None or confidence >= UNSURE:
        return ""
    return "a guess" if confidence < GUESSED else "unsure"


def rounded(confidence: float | None) -> float | None:
    """A confidence as JSON has it."""
    return None if confidence is None else round(confidence, 4)


def differs(one: str, other: str) -> bool:
    """Whether two answers say different things: fewer than half of their words of content are the
    same."""
    return one != other and _alike(_content(one), _content(other)) < _SAME


def surest_first(answers: Sequence[PartAnswer]) -> list[int]:
    """The places of ``answers`` by how sure their parts were to answer, the first of equals first;
    empty answers behind all others."""
    return sorted(range(len(answers)), key=lambda at: (not answers[at].text, -answers[at].opens))


def features(answers: Sequence[PartAnswer], question: str) -> list[dict[str, float]]:
    """The features of each of ``answers`` to ``question``."""
    wanted = _content(question) - QUESTION_WORDS
    said = [_content(answer.text) for answer in answers]
    opens = [max(answer.opens, _FLOOR) for answer in answers]
    first = surest_first(answers)[0]
    rows: list[dict[str, float]] = []
    for at, answer in enumerate(answers):
        others = [k for k in range(len(answers)) if k != at]
        passage = _content(answer.cited.text) if answer.cited else frozenset()
        logprobs = [max(p, _FLOOR) for p in answer.logprobs] or [_FLOOR]
        rows.append(
            {
                "constant": 1.0,
                "opens": opens[at],
                "opens_beside": opens[at] - max((opens[k] for k in others), default=_FLOOR),
                "stands": float(at == first),
                "mean": sum(logprobs) / len(logprobs),
                "least": min(logprobs),
                "rank": float(answer.rank),
                "agreed": max(
                    (_alike(said[at], said[k]) * math.exp(opens[k]) for k in others), default=0.0
                ),
                "asked": _share(wanted, passage),
                "echo": _share(said[at], wanted),
            }
        )
    return rows


def _content(text: str) -> frozenset[str]:
    return frozenset(stem(word) for word in words(text) if word not in STOP_WORDS)


def _share(part: frozenset[str], whole: frozenset[str]) -> float:
    return len(part & whole) / len(part) if part else 0.0


def _alike(one: frozenset[str], other: frozenset[str]) -> float:
    both = len(one) + len(other)
    return 2 * len(one & other) / both if both else 0.0
