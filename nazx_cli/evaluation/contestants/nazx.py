"""NazX itself, by its session."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nazx_cli.errors import ContextOverflowError
from nazx_cli.evaluation.contestants.base import Reply, code_identity, model_identity
from nazx_cli.evaluation.data.stories import ANSWER, SUMMARY
from nazx_cli.evaluation.records import Read
from nazx_cli.names import EXTRACT
from nazx_cli.reading.library import Library
from nazx_cli.session.events import Answer, Reading
from nazx_cli.session.session import Session

if TYPE_CHECKING:
    from nazx_cli.documents.document import Document
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.reading.passages import Passage
    from nazx_cli.session.settings import SessionSettings


class Shelf:
    """A model, loaded when it is first needed, and what goes with it.

    ``load`` gives the model, from the checkpoint in ``folder`` and the ``adapters`` in theirs.
    Contestants that differ in settings alone share a shelf, and with it
    the model's weights and the tokens of the documents at hand.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], LanguageModel],
        folder: Path,
        adapters: Sequence[Path] = (),
    ) -> None:
        self.name = name
        self.folder = folder
        self._adapters = tuple(adapters)
        self._load = load
        self._lm: LanguageModel | None = None
        self._at_hand: tuple[Sequence[Document], Library] | None = None
        self._sessions: dict[str, Session] = {}
        self._beside: dict[str, Any] = {}

    @property
    def identity(self) -> tuple[str, ...]:
        """Tells the weights that are asked from others."""
        return tuple(map(model_identity, (self.folder, *self._adapters)))

    @property
    def lm(self) -> LanguageModel:
        """The model."""
        if self._lm is None:
            self._lm = self._load()
        return self._lm

    def library(self, documents: Sequence[Document]) -> Library:
        """``documents``, tokenized once for all questions that follow one another."""
        if self._at_hand is None or self._at_hand[0] != documents:
            self._sessions.clear()
            self._at_hand = (documents, Library.build(documents, self.lm.tokenizer))
        return self._at_hand[1]

    def session(self, documents: Sequence[Document], settings: SessionSettings) -> Session:
        """A session about ``documents`` in which nothing was said."""
        library = self.library(documents)
        key = repr(settings)
        if key not in self._sessions:
            self._sessions[key] = Session(self.lm, library, settings)
        self._sessions[key].clear()
        return self._sessions[key]

    def beside(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` makes, kept until the shelf is closed."""
        if name not in self._beside:
            self._beside[name] = make()
        return self._beside[name]

    def close(self) -> None:
        """Give back the weights and all that goes with them."""
        self._lm = self._at_hand = None
        self._sessions.clear()
        self._beside.clear()


@dataclass(frozen=True)
class Found:
    """Passages that a question was given, and how they were read."""

    library: Library
    passages: tuple[Passage, ...]
    mode: str

    @property
    def reads(self) -> tuple[Read, ...]:
        """Where in the documents they stand."""
        return reads_of(self.library, self.passages)


class NazxContestant:
    """The product: answers as ``nazx ask`` and ``nazx chat`` do.

    Between two conversations about the same documents the session is cleared and kept, so a prompt
    that begins like the one before it is not computed again; the answers are the same. Without
    ``answers`` each question is read for and then left. ``how`` is what the model was loaded
    with, for the fingerprint.
    """

    kinds = frozenset({ANSWER, SUMMARY})

    def __init__(
        self,
        shelf: Shelf,
        settings: SessionSettings,
        how: Mapping[str, Any],
        label: str,
        *,
        answers: bool = True,
    ) -> None:
        self.label = label
        self.shelf = shelf
        self._settings = settings
        self._how = dict(how)
        self._answers = answers

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model, settings and code."""
        return {
            "model": self.shelf.identity,
            "how": self._how,
            "settings": repr(self._settings),
            "answers": self._answers,
            "code": code_identity(),
        }

    def converse(self, documents: Sequence[Document], questions: Sequence[str]) -> Iterator[Reply]:
        """See ``Contestant``."""
        session = self.shelf.session(documents, self._settings)
        for question in questions:
            if self._answers:
                yield _ask(session, self.shelf.library(documents), question)
            else:
                yield self._look(documents, question)

    def find(self, documents: Sequence[Document], question: str) -> Found:
        """What would be read for ``question``, asked alone; errors as for asking."""
        library = self.shelf.library(documents)
        events = self.shelf.session(documents, self._settings).ask(question)
        try:
            for event in events:
                if isinstance(event, Reading):
                    return Found(library, event.passages, event.mode)
                if isinstance(event, Answer):
                    break
        finally:
            events.close()
        return Found(library, (), "none")

    def _look(self, documents: Sequence[Document], question: str) -> Reply:
        begin = time.perf_counter()
        try:
            found = self.find(documents, question)
        except ContextOverflowError as error:
            return Reply(None, error=str(error))
        seconds = time.perf_counter() - begin
        return Reply(None, found.reads, found.mode, "none", seconds)


def _ask(session: Session, library: Library, question: str) -> Reply:
    begin = time.perf_counter()
    try:
        *_, answer = session.ask(question)
    except ContextOverflowError as error:
        return Reply("", error=str(error))
    if not isinstance(answer, Answer):
        raise TypeError("a session's last event is its answer")
    return replace(_reply(library, answer), seconds=time.perf_counter() - begin)


def _reply(library: Library, answer: Answer) -> Reply:
    found = reads_of(library, (answer.cited,)) if answer.cited is not None else ()
    return Reply(
        answer.text,
        reads_of(library, answer.sources),
        answer.mode,
        answer.finish,
        tokens=answer.stats.generated,
        cites=answer.mode not in ("none", EXTRACT),
        cited=found[0] if found else None,
        confidence=answer.confidence,
        runner_up=answer.runner_up.text if answer.runner_up is not None else None,
    )


def reads_of(library: Library, passages: Sequence[Passage]) -> tuple[Read, ...]:
    """Where in the library's documents passages stand, characters counted through all of them;
    those of earlier turns are left out."""
    before = [*accumulate((each.num_characters for each in library.documents), initial=0)]
    names = {document.name for document in library.documents}
    found = []
    for passage in passages:
        if passage.document in names:
            number = library.document_of(passage.start)
            within = passage.start - int(library.bounds[number])
            start = before[number] + library.documents[number].characters(within, within)[0]
            found.append(Read(start, start + len(passage.text), passage.text))
    return tuple(found)
