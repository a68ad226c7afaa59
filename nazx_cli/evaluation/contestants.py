"""Who answers: the contract, and NazX itself by its session."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nazx_cli.errors import ContextOverflowError
from nazx_cli.evaluation.records import Read
from nazx_cli.evaluation.stories import ANSWER, SUMMARY
from nazx_cli.reading.library import Library
from nazx_cli.session.events import Answer, Reading
from nazx_cli.session.session import Session

if TYPE_CHECKING:
    from nazx_cli.documents.document import Document
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.reading.passages import Passage
    from nazx_cli.session.settings import SessionSettings

_PIECES, _PIECE = (
    64,
    1 << 16,
)  # what of a file of weights is hashed: so many pieces of so many bytes
_ASIDE = ("bench", "cli", "evaluation", "memory", "serving", "training", "ui")


@dataclass(frozen=True)
class Reply:
    """What came back; the fields are those of ``records.Record``."""

    answer: str | None
    passages: tuple[Read, ...] | None = None
    mode: str = ""
    finish: str = ""
    seconds: float = 0.0
    tokens: int = 0
    cites: bool = False
    cited: Read | None = None
    confidence: float | None = None
    error: str = ""


class Contestant(Protocol):
    """One that answers questions about a document.

    ``label`` names it in tables; ``identity`` is all that its answers depend on beside document
    and questions, for the fingerprint; ``kinds`` are the kinds of questions that it answers.
    """

    @property
    def label(self) -> str: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    @property
    def kinds(self) -> frozenset[str]: ...

    def converse(self, document: Document, questions: Sequence[str]) -> Iterator[Reply]:
        """A reply to each of ``questions``, which are the turns of one conversation."""


class Shelf:
    """A model, loaded when it is first needed, and the document that it has at hand.

    ``load`` gives the model. Contestants that differ in settings alone share a shelf, and with it
    the model's weights and the document's tokens.
    """

    def __init__(self, name: str, load: Callable[[], LanguageModel], folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._load = load
        self._lm: LanguageModel | None = None
        self._at_hand: tuple[Document, Library] | None = None

    @property
    def lm(self) -> LanguageModel:
        """The model."""
        if self._lm is None:
            self._lm = self._load()
        return self._lm

    def library(self, document: Document) -> Library:
        """``document``, tokenized once for all questions that follow one another."""
        if self._at_hand is None or self._at_hand[0] != document:
            self._at_hand = (document, Library.build([document], self.lm.tokenizer))
        return self._at_hand[1]

    def close(self) -> None:
        """Give back the weights."""
        self._lm = self._at_hand = None


class NazxContestant:
    """The product: answers as ``nazx ask`` and ``nazx chat`` do.

    Between two conversations about a document the session is cleared and kept, so a prompt that
    begins like the one before it is not computed again; the answers are the same.
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
        """``how`` is what the model was loaded with, for the fingerprint; without ``answers``
        each question is read for and then left."""
        self.label = label
        self._shelf = shelf
        self._settings = settings
        self._how = dict(how)
        self._answers = answers
        self._session: Session | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model, settings and code."""
        return {
            "model": model_identity(self._shelf.folder),
            "how": self._how,
            "settings": repr(self._settings),
            "answers": self._answers,
            "code": code_identity(),
        }

    def converse(self, document: Document, questions: Sequence[str]) -> Iterator[Reply]:
        """See ``Contestant``."""
        library = self._shelf.library(document)
        session = self._session
        if session is None or session.lm is not self._shelf.lm or session.library is not library:
            session = self._session = Session(self._shelf.lm, library, self._settings)
        session.clear()
        for question in questions:
            yield self._ask(session, library, question)

    def _ask(self, session: Session, library: Library, question: str) -> Reply:
        begin = time.perf_counter()
        events = session.ask(question)
        reply = Reply(None, finish="none")
        try:
            for event in events:
                if isinstance(event, Reading):
                    reply = replace(reply, passages=_read(library, event.passages), mode=event.mode)
                    if not self._answers:
                        break
                elif isinstance(event, Answer):
                    reply = _reply(library, event)
        except ContextOverflowError as error:
            reply = Reply("" if self._answers else None, error=str(error))
        finally:
            events.close()
        return replace(reply, seconds=time.perf_counter() - begin)


def _reply(library: Library, answer: Answer) -> Reply:
    cited: Passage | None = getattr(answer, "cited", None)
    found = _read(library, (cited,)) if cited is not None else ()
    return Reply(
        answer.text,
        _read(library, answer.sources),
        answer.mode,
        answer.finish,
        tokens=answer.stats.generated,
        cites=hasattr(answer, "cited"),
        cited=found[0] if found else None,
        confidence=getattr(answer, "confidence", None),
    )


def _read(library: Library, passages: Sequence[Passage]) -> tuple[Read, ...]:
    """Where in the library's one document passages stand; those of earlier turns are left out."""
    part = library.parts[0]
    found = []
    for passage in passages:
        if passage.document == part.name:
            start = int(part.starts[passage.start]) if passage.start else 0
            found.append(Read(start, start + len(passage.text), passage.text))
    return tuple(found)


@lru_cache(maxsize=32)
def model_identity(folder: Path) -> str:
    """Tells checkpoints apart by their small files and by pieces of the large ones, so that a
    model of many gigabytes is known in a moment."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".json", ".safetensors", ".jinja", ".gguf") or not path.is_file():
            continue
        size = path.stat().st_size
        whole.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            step = max(_PIECE, size // _PIECES)
            for at in range(0, size, step):
                file.seek(at)
                whole.update(file.read(_PIECE))
    return whole.hexdigest()[:16]


@lru_cache(maxsize=1)
def code_identity() -> str:
    """Tells versions of the code that makes answers apart."""
    package = Path(__file__).parent.parent
    whole = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        if inside.parts[0] not in _ASIDE:
            whole.update(f"{inside.as_posix()}\n".encode() + path.read_bytes())
    return whole.hexdigest()[:16]


def fingerprint(values: Mapping[str, Any]) -> str:
    """A short name for ``values``."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
