"""From files to tokenized documents: what is read, read again, and watched for changes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.checkpoint.atomic import sha256_of
from nazx_cli.documents.gather import gather, listed, read_all
from nazx_cli.errors import DocumentError, UsageError
from nazx_cli.index.shelf import is_indexed
from nazx_cli.names import OnProgress
from nazx_cli.reading.tokenized import TokenizedDocument, tokenize_documents

if TYPE_CHECKING:
    from nazx_cli.documents.document import Document, Origin, Skipped
    from nazx_cli.index.shelf import Index
    from nazx_cli.tokenizer import Tokenizer


@dataclass(frozen=True)
class ReadResult:
    """What came of reading: new documents, names of those that were there already, and what
    a folder or glob left out."""

    added: tuple[TokenizedDocument, ...]
    known: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def read_new(
    specs: Sequence[str],
    present: Sequence[TokenizedDocument],
    tokenizer: Tokenizer,
    on_progress: OnProgress | None = None,
    like: TokenizedDocument | None = None,
    piped: str | None = None,
    index: Index | None = None,
) -> ReadResult:
    """Read what ``specs`` name and is not among ``present``; ``DocumentError`` as ``gather``,
    which ``piped`` is for. What is for ``index`` is kept there.

    A single document that has much in common with ``like`` is done sooner.
    ``on_progress`` is told bytes read and in all, then characters tokenized and in all.
    """
    listing = listed(specs, piped)
    if index is not None and index.takes(listing):

        def report(_: str, done: int, total: int) -> None:
            if on_progress:
                on_progress(done, total)

        taken = index.take_in(listing, tokenizer, present, report)
        return ReadResult(taken.documents, (), taken.skipped)
    gathered = read_all(listing, on_progress)
    new = [doc for doc in gathered.documents if not any(_same(doc, p.document) for p in present)]
    known = tuple(doc.name for doc in gathered.documents if doc not in new)
    if like is not None and len(new) == 1:
        added: tuple[TokenizedDocument, ...] = (like.revised(new[0], tokenizer, on_progress),)
    else:
        added = tokenize_documents(new, tokenizer, on_progress)
    return ReadResult(added, known, gathered.skipped)


def read_again(
    old: TokenizedDocument, tokenizer: Tokenizer, on_progress: OnProgress | None = None
) -> TokenizedDocument:
    """``old`` as its file is now: the same object where nothing has changed."""
    origin = origin_of(old)
    if not Path(origin.path).is_file():
        raise DocumentError(
            f"{old.name} is gone from {origin.path}",
            "what was read of it stays; /drop takes it out",
        )
    (document,) = gather([origin.path], on_progress=on_progress).documents
    if document.origin is not None and document.origin.sha256 == origin.sha256:
        return old
    return old.revised(replace(document, name=old.name), tokenizer, on_progress)


def rebuilt(
    documents: Iterable[TokenizedDocument],
    tokenizer: Tokenizer,
    on_progress: OnProgress | None = None,
) -> dict[TokenizedDocument, TokenizedDocument]:
    """Each of ``documents``, tokenized anew; ``UsageError`` where some lie in an index."""
    distinct = tuple(dict.fromkeys(documents))
    if is_indexed(distinct):
        raise UsageError(
            "the index has these documents for another tokenizer than this model's",
            "begin a new chat, with -m and --file",
        )
    new = tokenize_documents([each.document for each in distinct], tokenizer, on_progress)
    return dict(zip(distinct, new, strict=True))


def origin_of(tokenized: TokenizedDocument) -> Origin:
    """The file of a document; ``UsageError`` where it comes from none."""
    origin = tokenized.document.origin
    if origin is None:
        raise UsageError(f"{tokenized.name} was not read from a file", "name a document that was")
    return origin


class Watcher:
    """Tells which files have changed since they were read."""

    def __init__(self) -> None:
        self._unchanged: dict[str, tuple[str, int, int]] = {}  # path: sha256, size, mtime

    def changed(self, origin: Origin) -> bool:
        """Whether the file holds something else now; False where it is gone.

        Its bytes are looked at only where size or time differ from those already seen.
        """
        path = Path(origin.path)
        try:
            now = path.stat()
            seen = (origin.sha256, now.st_size, now.st_mtime_ns)
            known = (origin.sha256, origin.size, origin.mtime_ns)
            if seen in (known, self._unchanged.get(origin.path)):
                return False
            digest = sha256_of(path)
        except OSError:
            return False
        if digest != origin.sha256:
            return True
        self._unchanged[origin.path] = seen
        return False


def _same(one: Document, other: Document) -> bool:
    """Whether both were read from one file, also by two paths, or are alike where a file is not
    known."""
    if one.origin is not None and other.origin is not None:
        first, second = one.origin.path, other.origin.path
        return first == second or os.path.realpath(first) == os.path.realpath(second)
    return (one.name, one.text) == (other.name, other.text)
