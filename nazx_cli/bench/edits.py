"""Workload ``edits``: documents put in, taken out and moved in a long resident context.

The model has random weights. The edit itself is timed, and then the first token after it, in
which all that a layout derives is brought up to date, beside a first token without an edit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import models

from nazx_cli.bench.models import row_of, zipf_ids
from nazx_cli.bench.results import Row, Spread, clock
from nazx_cli.bench.setup import Setup
from nazx_cli.documents.document import Document
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.reading.library import Library
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.session.events import Delta
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings
from nazx_cli.tokenizer import Tokenizer

NAME = "edits"
TOKENS = 1_000_000
LAYOUTS = ("pairs",)
_DOCUMENTS = 8
_NOTHING = "no edit"


def run(setup: Setup) -> Iterator[Row]:
    """For each context length: a row for each kind of edit, and one for the token after it."""
    for lm in setup.random_models(LAYOUTS, setup.dtype):
        lm.tokenizer = _Bytes()
        for tokens in setup.settings.contexts or (TOKENS,):
            case = _Case(lm, tokens)
            case.round(0)  # allocates, and is not counted
            case.edits.clear()
            case.after.clear()
            for number in range(1, setup.settings.repeat + 1):
                setup.rounds(NAME)(number, setup.settings.repeat)
                case.round(number)
            yield from case.rows()


class _Bytes(Tokenizer):
    """A tokenizer of bytes, for any vocabulary: the documents are ids that stand for no text."""

    def __init__(self) -> None:
        super().__init__(Backend(models.BPE(vocab={"a": 0}, merges=[])))

    def encode(self, text: str) -> list[int]:
        """One id a byte."""
        return list(text.encode())

    def decode(self, ids: object, skip_special: bool = True) -> str:
        """Always the same letter: some text, so that an answer is a turn."""
        return "a"


class _Case:
    """A session with documents of ``tokens`` in all; seconds by name of what was done, of the edit
    and of the first token after it."""

    def __init__(self, lm: LanguageModel, tokens: int) -> None:
        self.lm, self.tokens = lm, tokens
        self.edits: dict[str, list[float]] = defaultdict(list)
        self.after: dict[str, list[float]] = defaultdict(list)
        size, vocab = tokens // _DOCUMENTS, lm.config.vocab_size
        *documents, self.spare = (_document(at, size, vocab) for at in range(_DOCUMENTS + 1))
        library = Library(documents, lm.tokenizer)
        self.session = Session(lm, library, SessionSettings(max_tokens=1))

    def rows(self) -> Iterator[Row]:
        """For every edit a row, and one for the token after it."""
        fresh = Spread(tuple(self.after.pop(_NOTHING)))
        for name, after in self.after.items():
            yield self._row(name, self.edits[name])
            row = self._row(f"first token after {name}", after)
            yield replace(row, peer="first token without an edit", theirs=fresh)

    def round(self, number: int) -> None:
        """Every edit, in turn."""
        session, middle = self.session, _DOCUMENTS // 2
        self._time(_NOTHING, lambda: None)
        self._time("/drop", lambda: session.drop(middle))
        self._time("/undo", session.undo)
        self._time("/swap", self._swap)
        self._time("/undo of /swap", session.undo)
        self._time("/move", lambda: session.move(middle, 1))
        self._time("/undo of /move", session.undo)
        before = session.branch
        self._time("/fork", lambda: session.fork(f"fork {number}"))
        session.drop(1)
        self._first_token()
        self._time("/switch", lambda: session.switch(before))

    def _swap(self) -> None:
        """As ``/swap`` does once the new file is tokenized."""
        documents = self.session.documents
        self.session.set_documents((*documents[:3], self.spare, *documents[4:]), "swapped")

    def _time(self, name: str, edit: Callable[[], object]) -> None:
        self.edits[name].append(clock(edit)[0])
        self.after[name].append(self._first_token())

    def _first_token(self) -> float:
        """Seconds from a question to its first token; the turn, if one came of it, is undone."""
        turns = len(self.session.turns)
        with closing(self.session.ask("Who?")) as events:
            first = (each for each in events if isinstance(each, Delta))
            seconds, _ = clock(lambda: next(first, None))
        if len(self.session.turns) > turns:
            self.session.undo()
        return seconds

    def _row(self, measure: str, seconds: list[float]) -> Row:
        spread = Spread(tuple(seconds))
        details = {"documents": _DOCUMENTS}
        return row_of(self.lm, NAME, measure, self.tokens, spread, details=details)


def _document(number: int, size: int, vocab: int) -> TokenizedDocument:
    ids = zipf_ids(vocab, size, seed=number).numpy()
    starts = np.arange(size, dtype=np.int32)
    return TokenizedDocument(Document(f"document {number}", "a" * size, "text"), ids, starts)
