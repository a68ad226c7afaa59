"""Workload ``edits``: documents put in, taken out and moved in a long resident context.

The model has random weights. The edit itself is timed, and then the first token after it, in
which all that a layout derives is brought up to date, beside a first token without an edit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import perf_counter

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models

from nazx_cli.bench.results import Row, Spread
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.shapes import inattention_config, random_decoder, random_model, zipf_ids
from nazx_cli.checkpoint.load import resolve_dtype
from nazx_cli.documents.document import Document
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.reading.library import Library
from nazx_cli.reading.tokenized import TokenizedDocument
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
    dtype = resolve_dtype(setup.settings.dtype, torch.device("cpu"))
    config = inattention_config(setup.settings.shapes)
    setup.note(f"{NAME}: making a random model of {setup.settings.shapes} shapes")
    decoder = random_decoder(config, dtype)
    for layout in setup.settings.layouts or LAYOUTS:
        for tokens in setup.settings.contexts or (TOKENS,):
            lm = random_model(setup.settings.shapes, decoder, layout)
            lm.tokenizer = _Bytes()
            yield from _Case(lm, tokens, setup).rows()


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
    """A session with documents of ``tokens`` in all; seconds by name of what was done."""

    def __init__(self, lm: LanguageModel, tokens: int, setup: Setup) -> None:
        self.lm = lm
        self.tokens = tokens
        self.setup = setup
        self.edits: dict[str, list[float]] = {}
        self.after: dict[str, list[float]] = {}
        size, vocab = tokens // _DOCUMENTS, lm.config.vocab_size
        documents = [_document(number, size, vocab) for number in range(_DOCUMENTS)]
        self.spare = _document(_DOCUMENTS, size, vocab)
        library = Library(documents, lm.tokenizer)
        self.session = Session(lm, library, SessionSettings(max_tokens=1))

    def rows(self) -> Iterator[Row]:
        """Every edit ``repeat`` times, in turn."""
        repeat = self.setup.settings.repeat
        self._round(0)  # allocates, and is not counted
        self.edits.clear()
        self.after.clear()
        for number in range(1, repeat + 1):
            self.setup.rounds(NAME)(number, repeat)
            self._round(number)
        fresh = Spread(tuple(self.after[_NOTHING]))
        for name, seconds in self.edits.items():
            if name != _NOTHING:
                yield self._row(name, seconds)
                row = self._row(f"first token after {name}", self.after[name])
                yield replace(row, peer="first token without an edit", theirs=fresh)

    def _round(self, number: int) -> None:
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
        begin = perf_counter()
        edit()
        self.edits.setdefault(name, []).append(perf_counter() - begin)
        self.after.setdefault(name, []).append(self._first_token())

    def _first_token(self) -> float:
        """Seconds from a question to its first token; the turn, if one came of it, is undone."""
        turns = len(self.session.turns)
        begin = perf_counter()
        for _ in self.session.ask("Who?"):
            pass
        seconds = perf_counter() - begin
        if len(self.session.turns) > turns:
            self.session.undo()
        return seconds

    def _row(self, measure: str, seconds: Sequence[float]) -> Row:
        return Row(
            workload=NAME,
            measure=measure,
            tokens=self.tokens,
            unit="s",
            dtype=self.lm.dtype,
            ours=Spread(tuple(seconds)),
            layout=self.lm.layout,
            details={"documents": _DOCUMENTS},
        )


def _document(number: int, size: int, vocab: int) -> TokenizedDocument:
    ids = zipf_ids(vocab, size, seed=number).numpy()
    starts = torch.arange(size, dtype=torch.int32).numpy()
    return TokenizedDocument(Document(f"document {number}", "a" * size, "text"), ids, starts)
