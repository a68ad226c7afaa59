"""Choosing passages for a question, of the documents and of turns that the prompt left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.reading.coverage import is_overview
from nazx_cli.reading.library import Library
from nazx_cli.reading.plan import Selection, select
from nazx_cli.session.earlier import matching, named

if TYPE_CHECKING:
    from nazx_cli.reading.passages import Passage
    from nazx_cli.reading.plan import Cost


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

    def __init__(
        self, documents: Library | None, *, reads_resident: bool, window: int | None, cost: Cost
    ) -> None:
        self._documents = documents
        self._reads_resident = reads_resident
        self._window = window
        self._cost = cost
        self._joint: Library | None = None

    def choose(self, question: str, mode: str, budget: int, earlier: Library | None) -> Choice:
        """Passages for ``question`` that cost at most ``budget`` tokens together.

        Of ``earlier`` turns come only passages that hold a word of the question. A question
        about the documents as a whole draws on the documents alone.
        """
        documents = self._documents
        if documents is None:
            found = self._of_turns(earlier, question, budget)
            return Choice(Selection("recall" if found else "none", found), False)
        if earlier is None or mode == "all":
            chosen = self._select(documents, question, mode, budget)
            return Choice(chosen, bool(chosen.passages))
        if mode == "tail" or (self._reads_resident and mode != "recall"):
            return self._beside(documents, question, mode, budget, earlier)
        at = named(earlier, question)
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
            documents,
            question,
            mode=mode,
            budget=budget,
            reads_resident=self._reads_resident,
            window=self._window,
            cost=self._cost,
        )

    def _of_turns(self, earlier: Library | None, question: str, budget: int) -> tuple[Passage, ...]:
        if earlier is None:
            return ()
        if self._window is not None:
            budget = min(budget, self._window // 4)
        return tuple(matching(earlier, question, budget, self._cost))

    def _with(self, documents: Library, earlier: Library) -> Library:
        """Documents and turns as one library."""
        parts = (*documents.parts, *earlier.parts)
        if self._joint is None or self._joint.parts != parts:
            self._joint = Library(parts, documents.tokenizer, documents.passage_tokens)
        return self._joint
