"""From files to parts: what is read, read again, and watched for changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.checkpoint.atomic import sha256_of
from nazx_cli.documents.gather import gather
from nazx_cli.errors import DocumentError, UsageError
from nazx_cli.reading.part import Part, build_parts

if TYPE_CHECKING:
    from nazx_cli.documents.document import Document, Origin, Skipped
    from nazx_cli.tokenizer import Tokenizer

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ReadResult:
    """What came of reading: new parts, names of documents that were there already, and what
    a folder or glob left out."""

    added: tuple[Part, ...]
    known: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def read_new(
    specs: Sequence[str],
    present: Sequence[Part],
    tokenizer: Tokenizer,
    on_progress: Progress | None = None,
    like: Part | None = None,
) -> ReadResult:
    """Read what ``specs`` name and is not among ``present``; ``DocumentError`` as ``gather``.

    A single document that has much in common with ``like`` is done sooner.
    ``on_progress`` is told bytes read and in all, then characters tokenized and in all.
    """
    gathered = gather(specs, on_progress=on_progress)
    new = [doc for doc in gathered.documents if not any(_same(doc, p.document) for p in present)]
    known = tuple(doc.name for doc in gathered.documents if doc not in new)
    if like is not None and len(new) == 1:
        parts: tuple[Part, ...] = (like.revised(new[0], tokenizer, on_progress),)
    else:
        parts = build_parts(new, tokenizer, on_progress)
    return ReadResult(parts, known, gathered.skipped)


def read_again(part: Part, tokenizer: Tokenizer, on_progress: Progress | None = None) -> Part:
    """``part`` as its file is now: the same object where nothing has changed."""
    origin = origin_of(part)
    if not Path(origin.path).exists():
        raise DocumentError(
            f"{part.name} is gone from {origin.path}",
            "what was read of it stays; /drop takes it out",
        )
    (document,) = gather([origin.path], on_progress=on_progress).documents
    if document.origin is not None and document.origin.sha256 == origin.sha256:
        return part
    return part.revised(replace(document, name=part.name), tokenizer, on_progress)


def rebuilt(
    parts: Iterable[Part], tokenizer: Tokenizer, on_progress: Progress | None = None
) -> dict[Part, Part]:
    """Each of ``parts``, tokenized anew."""
    distinct = tuple(dict.fromkeys(parts))
    new = build_parts([part.document for part in distinct], tokenizer, on_progress)
    return dict(zip(distinct, new, strict=True))


def origin_of(part: Part) -> Origin:
    """The file of ``part``; ``UsageError`` where it comes from none."""
    origin = part.document.origin
    if origin is None:
        raise UsageError(f"{part.name} was not read from a file", "name a document that was")
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
    """Whether both were read from one file, or are alike where a file is not known."""
    if one.origin is not None and other.origin is not None:
        return one.origin.path == other.origin.path
    return (one.name, one.text) == (other.name, other.text)
