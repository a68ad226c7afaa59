"""Turns that the prompt has left out, as documents in which recall can find them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.documents.document import Document
from nazx_cli.reading.library import Library
from nazx_cli.reading.part import Part
from nazx_cli.reading.recall import occurrences, question_terms, rank

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.reading.passages import Passage
    from nazx_cli.session.history import History, Turn
    from nazx_cli.tokenizer import Tokenizer

_LABELS = frozenset(("question", "answer"))  # words that stand in every turn


class EarlierTurns:
    """Makes parts of turns, each once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._parts: dict[tuple[int, str, str], Part] = {}
        self._library = Library((), tokenizer)

    def library(self, history: History) -> Library | None:
        """The turns that ``history`` leaves out; None where it leaves out none."""
        turns = history.turns[: history.left_out]
        parts = tuple(self._part(number, turn) for number, turn in enumerate(turns, 1))
        if parts != self._library.parts:
            self._library = Library(parts, self._tokenizer)
        return self._library if parts else None

    def _part(self, number: int, turn: Turn) -> Part:
        key = (number, turn.question, turn.answer)
        if key not in self._parts:
            self._parts[key] = Part.build(turn_document(number, turn), self._tokenizer)
        return self._parts[key]


def turn_document(number: int, turn: Turn) -> Document:
    """Turn ``number``, counted from 1, as text."""
    text = f"Question: {turn.question}\n\nAnswer: {turn.answer.strip()}"
    return Document(f"turn {number}", text, "turn")


def named(turns: Library, question: str) -> NDArray[np.int64]:
    """Where in ``turns`` the words of content of ``question`` stand: positions, ascending."""
    terms = [t for t in question_terms(question) if t.has_content and t.word not in _LABELS]
    found = [occurrences(turns, term) for term in terms]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))


def matching(
    turns: Library, question: str, budget: int, cost: Callable[[Passage], int]
) -> list[Passage]:
    """Passages of ``turns`` that hold a word of content of ``question``, in their order.

    The best ones that cost at most ``budget`` tokens together; none where nothing matches.
    """
    at = named(turns, question)
    if not len(at):
        return []
    holding = set((np.searchsorted(turns.cuts, at, side="right") - 1).tolist())
    chosen: list[Passage] = []
    for i in rank(turns, question).order.tolist():
        if i in holding and (price := cost(turns.passages[i])) <= budget:
            chosen.append(turns.passages[i])
            budget -= price
    return turns.merged(chosen)
