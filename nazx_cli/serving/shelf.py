"""The documents that requests can name: read once, tokenized once, held for all of them."""

from __future__ import annotations

import io
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from threading import Lock
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from nazx_cli.documents.control import strip_control
from nazx_cli.documents.document import Document
from nazx_cli.documents.file import read_bytes
from nazx_cli.documents.gather import Listing
from nazx_cli.errors import DocumentError
from nazx_cli.index.shelf import is_indexed, size_of
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.serving.errors import ApiError

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.index.shelf import Index

_LONGEST_NAME = 200  # characters
_NAMELESS = "document"
_PAGE = 10_000  # most documents of a page of the list, and so many where nothing is said
_ORDERS = ("asc", "desc")  # as they came, and the last one first
_OWN = "nazx"  # the purpose of documents that are there from the beginning


@dataclass(frozen=True)
class Held:
    """A document under the id that requests name it by; ``nbytes`` is what came in."""

    document: TokenizedDocument
    nbytes: int
    purpose: str
    id: str = field(default_factory=lambda: f"file-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def own(cls, document: TokenizedDocument) -> Held:
        """One that is there from the beginning."""
        origin = document.document.origin
        if origin is not None:  # nothing is read of a document on disk
            return cls(document, origin.size, _OWN)
        return cls(document, len(document.text.encode("utf-8", "replace")), _OWN)

    @property
    def is_indexed(self) -> bool:
        """Whether it lies in the index: sessions do not keep it."""
        return is_indexed((self.document,))

    @property
    def record(self) -> dict[str, Any]:
        """OpenAI's file object, and how many tokens the document has."""
        document = self.document
        own = {"tokens": len(document), "format": document.document.format}
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.nbytes,
            "created_at": self.created,
            "filename": document.name,
            "purpose": self.purpose,
            "status": "processed",
            "nazx": own | {"indexed": self.is_indexed},
        }


@dataclass(frozen=True)
class Upload:
    """What was sent: the document that it is, or for the index its bytes as a file, which goes
    with this."""

    name: str
    nbytes: int
    purpose: str
    content: Document | IO[bytes]


class Shelf:
    """Documents by id, in the order they came; equal ones are one document under several ids.

    All must fit the model's plan of memory. ``always`` are those that a request reads which names
    none; what is sent goes into ``index`` where it is much, with what lies in memory by then. Only
    the worker's thread adds; any may look, or remove.
    """

    def __init__(
        self,
        lm: LanguageModel,
        always: Sequence[TokenizedDocument] = (),
        index: Index | None = None,
    ) -> None:
        self._lm, self._index = lm, index
        self._held: dict[str, Held] = {}
        self._documents: dict[str, TokenizedDocument] = {}  # by what names name and content
        self._uses: Counter[str] = Counter()  # ids of each
        self._changing = Lock()
        self.num_tokens = 0
        """Of all documents."""
        for each in always:
            self._keep(Held.own(each))
        self._always = dict(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(tuple(self._held.values()))

    def __contains__(self, document: TokenizedDocument) -> bool:
        return document.key in self._documents

    @property
    def num_documents(self) -> int:
        """Each counted once."""
        return len(self._documents)

    def get(self, id: str) -> Held:
        """The document of that id; 404 where there is none."""
        try:
            return self._held[id]
        except KeyError:
            raise ApiError(404, f"no such file: {id[:80]}", "id", "file_not_found") from None

    def named(self, ids: Sequence[str] | None) -> tuple[Held, ...]:
        """The documents that a request names; None: it says nothing of documents. ``nazx`` among
        the ids stands for those that are there from the beginning."""
        found: dict[str, Held] = {}
        for id in (_OWN,) if ids is None else ids:
            found |= dict(self._always) if id == _OWN else {id: self.get(id)}
        return tuple(found.values())

    def page(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """The page of the list that ``asked`` names, as OpenAI's clients turn them: by ``after``,
        ``limit``, ``order`` and ``purpose``."""
        limit, order = asked.get("limit", str(_PAGE)), asked.get("order", _ORDERS[-1])
        if not (limit.isdecimal() and len(limit) < 9 and 1 <= int(limit) <= _PAGE):
            raise _wrong("limit", f"must be a whole number from 1 to {_PAGE:,}")
        if order not in _ORDERS:
            raise _wrong("order", f"must be one of {', '.join(_ORDERS)}")
        found = [held for held in self if asked.get("purpose", held.purpose) == held.purpose]
        if order == "desc":
            found.reverse()
        total = len(found)
        if (after := asked.get("after")) is not None:
            last = self.get(after)
            found = found[found.index(last) + 1 :] if last in found else []
        page = [held.record for held in found[: int(limit)]]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
        more: dict[str, Any] = {"has_more": len(found) > len(page), "nazx": {"total": total}}
        return {"object": "list", "data": page, **ends, **more}

    def receive(self, filename: str | None, file: BinaryIO, nbytes: int, purpose: str) -> Upload:
        """What ``add`` takes of an upload, called by the last part of the name that the client gave
        it. On any thread."""
        name = PurePosixPath(strip_control(filename or "").replace("\\", "/")).name
        name = " ".join(name.split())[-_LONGEST_NAME:] or _NAMELESS
        loose = sum(held.nbytes for held in self if not held.is_indexed)
        if self._index is not None and self._index.takes_bytes(loose + nbytes):
            copy = NamedTemporaryFile(prefix="nazx-")  # noqa: SIM115 it goes with the upload
            shutil.copyfileobj(file, copy)
            copy.flush()
            return Upload(name, nbytes, purpose, copy)
        try:
            # What the form is spooled to lacks methods of a file before Python 3.11.
            content = read_bytes(name, io.BytesIO(file.read()))
        except DocumentError as error:
            raise ApiError(400, f"{name} {error.message}", "file", "invalid_file") from None
        return Upload(name, nbytes, purpose, content)

    def add(self, upload: Upload) -> Generator[Held, None, None]:
        """Tokenize and keep a document; yields once, what it is known by from then on."""
        new = self._tokenized(upload)
        document = self._documents.get(new.key, new)
        if document is new:
            self._check((*self._documents.values(), new))
        held = Held(document, upload.nbytes, upload.purpose)
        self._keep(held)
        try:
            yield held
        except GeneratorExit:  # whoever sent it has left without its id
            if held.id in self._held:
                self.remove(held.id)
            raise

    def remove(self, id: str) -> Held:
        """Let go of the document of that id."""
        with self._changing:
            held = self.get(id)
            key = held.document.key
            del self._held[id]
            self._always.pop(id, None)
            self._uses[key] -= 1
            if not self._uses[key]:
                del self._uses[key], self._documents[key]
                self.num_tokens -= len(held.document)
        return held

    def _keep(self, held: Held) -> None:
        key = held.document.key
        with self._changing:
            self._held[held.id] = held
            self._uses[key] += 1
            if key not in self._documents:
                self._documents[key] = held.document
                self.num_tokens += len(held.document)

    def _tokenized(self, upload: Upload) -> TokenizedDocument:
        tokenizer = self._lm.tokenizer
        if isinstance(upload.content, Document):
            return TokenizedDocument.build(upload.content, tokenizer)
        assert self._index is not None
        listing = Listing()
        listing.add_file(upload.name, Path(upload.content.name))
        with upload.content:
            try:
                (document,) = self._index.take_in(listing, tokenizer).documents
            except DocumentError as error:
                raise ApiError(400, error.message, "file", "invalid_file") from None
        return document

    def _check(self, documents: Sequence[TokenizedDocument]) -> None:
        self._lm.plan_for(size_of(documents, self._lm.config)).check()


def _wrong(param: str, what: str) -> ApiError:
    return ApiError(400, f"{param} {what}", param, "invalid_value")
