"""Choosing passages for a question, of the documents and of turns that the prompt left out.

Turns that are left out become documents of their own, in which recall can find them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.documents.document import Document
from nazx_cli.reading.coverage import is_overview
from nazx_cli.reading.library import Library
from nazx_cli.reading.plan import Selection, select
from nazx_cli.reading.recall import occurrences, question_terms, rank
from nazx_cli.reading.tokenized import TokenizedDocument

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.reading.passages import Passage
    from nazx_cli.reading.plan import Cost
    from nazx_cli.session.state import History, Turn
    from nazx_cli.tokenizer import Tokenizer

_LABELS = frozenset(("question", "answer"))  # words that stand in every turn


class EarlierTurns:
    """Makes documents of turns, each once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._made: dict[tuple[int, str, str], TokenizedDocument] = {}
        self._library = Library((), tokenizer)

    def library(self, history: History) -> Library | None:
        """The turns that ``history`` leaves out; None where it leaves out none."""
        turns = history.turns[: history.left_out]
        documents = tuple(self._document(number, turn) for number, turn in enumerate(turns, 1))
        if documents != self._library.documents:
            self._library = Library(documents, self._tokenizer)
        return self._library if documents else None

    def _document(self, number: int, turn: Turn) -> TokenizedDocument:
        key = (number, turn.question, turn.answer)
        if key not in self._made:
            text = f"Question: {turn.question}\n\nAnswer: {turn.answer.strip()}"
            document = Document(f"turn {number}", text, "turn")
            self._made[key] = TokenizedDocument.build(document, self._tokenizer)
        return self._made[key]


@dataclass(frozen=True)
class Choice:
    """A selection, and whether any of its passages is a document's."""

    selection: Selection
    of_documents: bool

    @property
    def passages(self) -> tuple[Passage, ...]:
        """What goes into the prompt."""
        return self.selection.passages


class Chooser:
    """Chooses from ``documents`` (None: there are none); ``window`` is the model's, in tokens."""

    def __init__(self, documents: Library | None, *, window: int | None, cost: Cost) -> None:
        self._documents = documents
        self._window = window
        self._cost = cost
        self._joint: Library | None = None

    def choose(self, question: str, mode: str, budget: int, earlier: Library | None) -> Choice:
        """Passages for ``question`` that cost at most ``budget`` tokens together.

        ``mode`` is one of ``mode_for``. Of ``earlier`` turns come only passages that hold a word
        of the question. A question about the documents as a whole draws on them alone.
        """
        documents = self._documents
        if documents is None:
            found = self._of_turns(earlier, question, budget)
            return Choice(Selection("recall" if found else "none", found), False)
        if earlier is None or mode == "all":
            chosen = self._select(documents, question, mode, budget)
            return Choice(chosen, bool(chosen.passages))
        if mode in ("tail", "resident"):
            return self._beside(documents, question, mode, budget, earlier)
        at = _named(earlier, question)
        if not len(at):
            return Choice(self._select(documents, question, mode, budget), True)
        joint = self._with(documents, earlier)
        if is_overview(documents, question) and is_overview(joint, question):
            return Choice(self._select(documents, question, mode, budget), True)
        if documents.num_tokens <= budget:
            choice = self._beside(documents, question, "recall", budget, earlier)
            if sum(map(len, choice.passages)) >= documents.num_tokens:
                return choice
        chosen = self._select(joint, question, "recall", budget)
        ends = documents.num_tokens
        passages = tuple(
            p
            for p in chosen.passages
            if p.start < ends or np.any((at >= p.start - ends) & (at < p.stop - ends))
        )
        return Choice(Selection(chosen.mode, passages), any(p.start < ends for p in passages))

    def _beside(
        self, documents: Library, question: str, mode: str, budget: int, earlier: Library
    ) -> Choice:
        """What the documents give, and what then fits of the turns."""
        chosen = self._select(documents, question, mode, budget)
        left = budget - sum(map(self._cost, chosen.passages))
        found = self._of_turns(earlier, question, left)
        passages = (*chosen.passages, *found)
        return Choice(Selection(chosen.mode, passages, chosen.overview), bool(chosen.passages))

    def _select(self, documents: Library, question: str, mode: str, budget: int) -> Selection:
        return select(
            documents, question, mode=mode, budget=budget, window=self._window, cost=self._cost
        )

    def _of_turns(self, earlier: Library | None, question: str, budget: int) -> tuple[Passage, ...]:
        if earlier is None:
            return ()
        if self._window is not None:
            budget = min(budget, self._window // 4)
        return tuple(_matching(earlier, question, budget, self._cost))

    def _with(self, documents: Library, earlier: Library) -> Library:
        """Documents and turns as one library."""
        both = (*documents.documents, *earlier.documents)
        if self._joint is None or self._joint.documents != both:
            self._joint = Library(both, documents.tokenizer, documents.passage_tokens)
        return self._joint


def _named(turns: Library, question: str) -> NDArray[np.int64]:
    """Where in ``turns`` the words of content of ``question`` stand: positions, ascending."""
    terms = [t for t in question_terms(question) if t.has_content and t.word not in _LABELS]
    found = [occurrences(turns, term) for term in terms]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))


def _matching(turns: Library, question: str, budget: int, cost: Cost) -> list[Passage]:
    """Passages of ``turns`` that hold a word of content of ``question``, in their order.

    The best ones that cost at most ``budget`` tokens together; none where nothing matches.
    """
    at = _named(turns, question)
    if not len(at):
        return []
    holding = set((np.searchsorted(turns.cuts, at, side="right") - 1).tolist())
    chosen: list[Passage] = []
    for i in rank(turns, question).order.tolist():
        if i in holding and (price := cost(turns.passages[i])) <= budget:
            chosen.append(turns.passages[i])
            budget -= price
    return turns.merged(chosen)
