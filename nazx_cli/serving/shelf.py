"""The documents that requests can name: read once, tokenized once, held for all of them."""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from nazx_cli.documents.control import strip_control
from nazx_cli.documents.file import read_bytes
from nazx_cli.errors import DocumentError
from nazx_cli.memory.estimate import TextSize
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.serving.errors import ApiError

if TYPE_CHECKING:
    from nazx_cli.documents.document import Document
    from nazx_cli.engine.language_model import LanguageModel

_LONGEST_NAME = 200  # characters
_NAMELESS = "document"


@dataclass(frozen=True)
class Held:
    """A document under the id that requests name it by; ``nbytes`` is what came in."""

    document: TokenizedDocument
    nbytes: int
    purpose: str
    id: str = field(default_factory=lambda: f"file-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def record(self) -> dict[str, Any]:
        """OpenAI's file object, and how many tokens the document has."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.nbytes,
            "created_at": self.created,
            "filename": self.document.name,
            "purpose": self.purpose,
            "status": "processed",
            "nazx": {"tokens": len(self.document), "format": self.document.document.format},
        }


class Shelf:
    """Documents by id, in the order they came; equal ones are one document under several ids.

    All must fit the model's plan of memory. ``always`` are those that a request reads which names
    none. Only the worker's thread adds; any may look.
    """

    def __init__(self, lm: LanguageModel, always: Sequence[TokenizedDocument] = ()) -> None:
        self._lm = lm
        held = [Held(each, len(each.text.encode("utf-8", "replace")), "nazx") for each in always]
        self._held = {each.id: each for each in held}
        self._always = tuple(each.id for each in held)

    def __iter__(self) -> Iterator[Held]:
        return iter(tuple(self._held.values()))

    @property
    def documents(self) -> tuple[TokenizedDocument, ...]:
        """Each document once."""
        return tuple(dict.fromkeys(each.document for each in self))

    def get(self, id: str) -> Held:
        """The document of that id; 404 where there is none."""
        try:
            return self._held[id]
        except KeyError:
            raise ApiError(404, f"no such file: {id[:80]}", "id", "file_not_found") from None

    def named(self, ids: Sequence[str] | None) -> tuple[Held, ...]:
        """The documents that a request names; None: it says nothing of documents."""
        if ids is None:
            return tuple(self._held[id] for id in self._always if id in self._held)
        return tuple(self.get(id) for id in dict.fromkeys(ids))

    def add(self, document: Document, nbytes: int, purpose: str) -> Generator[Held, None, None]:
        """Tokenize and keep ``document``; yields once, what it is known by from then on."""
        new = TokenizedDocument.build(document, self._lm.tokenizer)
        known = {each.key: each for each in self.documents}
        held = Held(known.get(new.key, new), nbytes, purpose)
        if held.document is new:
            self._check((*self.documents, new))
        self._held[held.id] = held
        try:
            yield held
        except GeneratorExit:  # whoever sent it has left without its id
            self._held.pop(held.id, None)
            raise

    def remove(self, id: str) -> Held:
        """Let go of the document of that id."""
        held = self.get(id)
        self._held.pop(id, None)
        return held

    def _check(self, documents: Collection[TokenizedDocument]) -> None:
        size = TextSize.of((each.ids for each in documents), self._lm.config)
        self._lm.plan_for(size).check()


def read_upload(filename: str | None, file: BinaryIO) -> Document:
    """The document in an upload, by the last part of the name that the client gave it."""
    name = PurePosixPath(strip_control(filename or "").replace("\\", "/")).name
    name = " ".join(name.split())[-_LONGEST_NAME:] or _NAMELESS
    try:
        # What the form is spooled to lacks methods of a file before Python 3.11.
        return read_bytes(name, io.BytesIO(file.read()))
    except DocumentError as error:
        raise ApiError(400, f"{name} {error.message}", "file", "invalid_file") from None
