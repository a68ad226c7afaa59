"""From ``--file`` to documents of the index: what is known costs a look, a copy its hash, what is
new its reading."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from nazx_cli.documents.document import Origin, Skipped
from nazx_cli.documents.file import NoReaderError, UnreadableError, hash_of, read_file
from nazx_cli.documents.gather import Item, Listing, read_item
from nazx_cli.errors import DocumentError
from nazx_cli.index.build import SEGMENT_TOKENS, Builder
from nazx_cli.index.catalogue import Catalogue, Lying, Seen
from nazx_cli.index.documents import StoredDocument
from nazx_cli.names import OnNamedProgress
from nazx_cli.reading.tokenized import TokenizedDocument

if TYPE_CHECKING:
    from nazx_cli.tokenizer import Tokenizer

DEFAULT_SIZE = 20_000_000_000
"""Bytes that the index takes of the disk, at most."""
_NOTED = 5.0  # seconds between notes of what was hashed, so that it is not lost
_READING = 0.2  # of the time that a new file takes, about
_SMALL = SEGMENT_TOKENS // 8  # tokens: segments of fewer ...
_MOST_SMALL = 8  # ... are made one where there are more of them than this


@dataclass(frozen=True)
class Taken:
    """What came of it: documents in their order, each content once, and how many files are copies
    of others; what was left out; how many files were looked into, and how many contents were not
    known before."""

    documents: tuple[TokenizedDocument, ...]
    skipped: tuple[Skipped, ...]
    copies: int
    looked_into: int
    new: int

    @property
    def told(self) -> str:
        """What to say of it."""
        held = f"documents in the index: {len(self.documents):,}, new: {self.new:,}"
        return f"{held}, files that are copies of others: {self.copies:,}"


def take_in(
    listing: Listing,
    tokenizer: Tokenizer,
    folder: Path,
    limit: int = DEFAULT_SIZE,
    present: Sequence[TokenizedDocument] = (),
    on_progress: OnNamedProgress | None = None,
) -> Taken:
    """The documents of ``listing`` by the index in ``folder``, which takes up to ``limit`` bytes;
    but what is among ``present``.

    Errors as ``gather``'s; ``NazxError`` where the index cannot be written. What is in when it is
    stopped, by Ctrl-C or otherwise, need not be done again, but for the last few million tokens.
    """
    catalogue = Catalogue(folder, tokenizer, limit)
    try:
        intake = _Intake(catalogue, tokenizer, on_progress or (lambda *_: None))
        return intake.take(listing, present)
    finally:
        catalogue.close()


@dataclass
class _File:
    """A regular file of the listing."""

    item: Item
    place: str
    seen: Seen
    digest: str = ""


@dataclass
class _Intake:
    catalogue: Catalogue
    tokenizer: Tokenizer
    on_progress: OnNamedProgress
    skipped: list[Skipped] = field(default_factory=list)
    looked_into: int = 0
    new: int = 0

    def take(self, listing: Listing, present: Sequence[TokenizedDocument]) -> Taken:
        """See ``take_in``."""
        found: dict[int, _File | TokenizedDocument] = {}
        for number, item in enumerate(listing.items):
            if (taken := self._looked_at(item)) is not None:
                found[number] = taken
        files = [each for each in found.values() if isinstance(each, _File)]
        self._hash(files)
        files = [file for file in files if file.digest]
        lying = self._index(files)
        return self._documents(listing, found, lying, present)

    def _looked_at(self, item: Item) -> _File | TokenizedDocument | None:
        """A regular file, without a look into it; what is none is read; None: left out."""
        try:
            state = item.state
            if state is not None and stat.S_ISREG(state.st_mode):
                return _File(item, os.path.abspath(item.path), Seen.of(state))  # noqa: PTH100
            document = read_item(item, lambda done, total: None)
        except DocumentError as error:
            self.skipped.append(item.left_out(error))
        else:
            return TokenizedDocument.build(document, self.tokenizer)
        return None

    def _hash(self, files: list[_File]) -> None:
        """The hash of each file, that of those which have not changed from last time; none where
        it is no document."""
        known = self.catalogue.known([file.place for file in files])
        unknown: list[_File] = []
        for file in files:
            seen, digest = known.get(file.place, (None, ""))
            if seen != file.seen:
                unknown.append(file)
            elif digest:
                file.digest = digest
            else:
                self.skipped.append(file.item.left_out(NoReaderError()))
        self.looked_into = len(unknown)
        total, done, noted = sum(file.seen.size for file in unknown), 0, monotonic()
        fresh: dict[str, tuple[Seen, str]] = {}
        try:
            for file in unknown:

                def report(part: int, done: int = done) -> None:
                    self.on_progress("looking", done + part, total)

                try:
                    file.digest = hash_of(file.item.path, report)
                except UnreadableError as error:
                    self.skipped.append(file.item.left_out(error))
                    continue
                except NoReaderError as error:
                    self.skipped.append(file.item.left_out(error))
                fresh[file.place] = (file.seen, file.digest)
                done += file.seen.size
                if monotonic() - noted > _NOTED:
                    self.catalogue.remember(fresh)
                    fresh, noted = {}, monotonic()
        finally:
            self.catalogue.remember(fresh)

    def _index(self, files: list[_File]) -> dict[str, Lying]:
        """Where the contents of ``files`` lie; what lies nowhere yet is put in."""
        lying = self._present(self.catalogue.lying({file.digest for file in files}))
        new: dict[str, _File] = {}
        for file in files:
            if file.digest not in lying:
                new.setdefault(file.digest, file)
        if new:
            with self.tokenizer.remembering():
                self._put(list(new.values()))
                self._join_small()
        return self._present(self.catalogue.lying({file.digest for file in files}))

    def _put(self, files: list[_File]) -> None:
        """Read ``files``, each of another content, and put them in."""
        total, done = sum(file.seen.size for file in files), 0
        builder = Builder(self.tokenizer)
        for file in files:

            def report(part: float, done: int = done, size: int = file.seen.size) -> None:
                self.on_progress("indexing", done + int(part * size), total)

            if (document := self._read(file, report)) is not None:
                builder.add(file.digest, document)
                self.new += 1
            done += file.seen.size
            self.on_progress("indexing", done, total)
            if builder.tokens >= SEGMENT_TOKENS:
                self.catalogue.put(builder)
                builder = Builder(self.tokenizer)
        if len(builder):
            self.catalogue.put(builder)

    def _read(self, file: _File, report: Callable[[float], None]) -> TokenizedDocument | None:
        """The document in ``file``; None where there is none."""

        def reading(done: int, size: int) -> None:
            report(_READING * done / max(1, size))

        def tokenizing(done: int, size: int) -> None:
            report(_READING + (1 - _READING) * done / max(1, size))

        try:
            document = read_file(file.item.name, file.item.path, reading)
        except UnreadableError as error:
            self.skipped.append(file.item.left_out(error))
            file.digest = ""
            return None
        except DocumentError as error:
            self.catalogue.refuse(file.digest, error.message)
            return None
        if document.origin is not None:  # it may have changed since it was looked at
            file.digest = document.origin.sha256
        return TokenizedDocument.build(document, self.tokenizer, tokenizing)

    def _present(self, lying: dict[str, Lying]) -> dict[str, Lying]:
        """Those whose segments are there."""
        segments = {name: self.catalogue.segment(name) for name, _, _ in lying.values() if name}
        return {
            digest: where
            for digest, where in lying.items()
            if where.fault is not None
            or (
                (segment := segments[where.segment]) is not None
                and where.number < len(segment)
                and segment.hash_of(where.number) == digest
            )
        }

    def _join_small(self) -> None:
        """Make small segments one: what came file by file would take a look each otherwise."""
        small = self.catalogue.small_segments(_SMALL)
        if len(small) <= _MOST_SMALL:
            return
        builder, held = Builder(self.tokenizer), set[str]()
        for name in small:
            if (segment := self.catalogue.segment(name)) is None:
                continue
            for d in range(len(segment)):
                if (digest := segment.hash_of(d)) not in held:
                    held.add(digest)
                    origin = Origin("", digest, 0, 0)
                    document = StoredDocument("", segment, d, origin, self.tokenizer)
                    builder.add(digest, TokenizedDocument.build(document.document, self.tokenizer))
        self.catalogue.put(builder)

    def _documents(
        self,
        listing: Listing,
        found: dict[int, _File | TokenizedDocument],
        lying: dict[str, Lying],
        present: Sequence[TokenizedDocument],
    ) -> Taken:
        held = {each.document.origin.sha256 for each in present if each.document.origin}
        documents: list[TokenizedDocument] = []
        good: set[str] = set()
        copies = 0
        for number, item in enumerate(listing.items):
            each = found.get(number)
            document = self._document(each, lying) if isinstance(each, _File) else each
            if document is None:
                continue
            if item.group is not None:
                good.add(item.group)
            if isinstance(each, _File):
                if each.digest in held:
                    copies += 1
                    continue
                held.add(each.digest)
            documents.append(document)
        listing.check(good)
        order = {item.name: number for number, item in enumerate(listing.items)}
        self.skipped.sort(key=lambda left_out: order[left_out.name])
        skipped = (*listing.skipped, *self.skipped)
        return Taken(tuple(documents), skipped, copies, self.looked_into, self.new)

    def _document(self, file: _File, lying: dict[str, Lying]) -> StoredDocument | None:
        """The document in ``file``; None where it is none, which is told."""
        if not file.digest:
            return None  # told already
        where = lying.get(file.digest)
        if where is None:
            changed = DocumentError("has changed while it was read", "start again")
            self.skipped.append(file.item.left_out(changed))
            return None
        if where.fault is not None:
            self.skipped.append(file.item.left_out(DocumentError(where.fault)))
            return None
        segment = self.catalogue.segment(where.segment)
        assert segment is not None, "it was there a moment ago, and stays open"
        origin = Origin(file.place, file.digest, file.seen.size, file.seen.mtime)
        return StoredDocument(file.item.name, segment, where.number, origin, self.tokenizer)
