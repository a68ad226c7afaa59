"""From ``--file`` values to documents: files, folders, globs and standard input."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path

from nazx_cli.documents.document import Document, Gathered, Skipped
from nazx_cli.documents.file import read_file
from nazx_cli.documents.folders import expand, walk
from nazx_cli.documents.text import normalize_newlines
from nazx_cli.errors import DocumentError

STDIN = "-"
"""The ``--file`` value that stands for standard input."""

_CAUSES = {  # what a reader can say -> what to do about it
    "is a binary file": "give a text, HTML, PDF, EPUB or DOCX file",
    "is in an encoding that cannot be told": "convert it to UTF-8 first, as iconv does",
}


def gather(
    specs: Sequence[str],
    stdin_text: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Gathered:
    """Read every document that ``specs`` names, in their order, each once.

    A spec is a file, a folder (all that can be read below it, sorted; hidden entries and those
    that a ``.gitignore`` names left out), a glob (``**`` included), or ``-`` for ``stdin_text``.
    What a folder or glob holds that cannot be read is listed in ``skipped``; a spec that yields
    nothing is a DocumentError. ``on_progress`` is told bytes read and in all.
    """
    plan = _Plan()
    for spec in specs:
        if spec == STDIN:
            plan.add_stdin(stdin_text)
            continue
        try:
            _add(plan, spec, _with_home(spec))
        except OSError as error:  # a name too long, a folder on the way that is closed to us
            shown = spec if len(spec) <= 80 else spec[:79] + "…"
            raise DocumentError(
                f"{shown} cannot be opened: {error.strerror or error}", "check the path"
            ) from None
    return _read_all(plan, on_progress)


def _add(plan: _Plan, spec: str, path: Path) -> None:
    if path.is_dir():
        found = walk(spec, path)
        plan.skipped += found.skipped
        plan.add_members(spec, found.files, "has no readable text in it")
    elif has_magic(spec) and not os.path.lexists(path):
        plan.add_members(spec, expand(path), "matches no readable text file")
    elif os.path.lexists(path):
        plan.add_file(spec, path)
    else:
        raise DocumentError(f"there is no file {spec}", _nearest(spec, path))


def _with_home(spec: str) -> Path:
    """``spec`` with ``~`` expanded, where it names a home folder that there is."""
    try:
        return Path(spec).expanduser()
    except RuntimeError:
        return Path(spec)


@dataclass
class _Group:
    """What one folder or glob named: an error with ``empty`` where none of it can be read."""

    spec: str
    empty: str
    any_good: bool = False


@dataclass(frozen=True)
class _Item:
    """A file to read, named by itself or in a group; or a document that is there already."""

    name: str
    path: Path
    group: _Group | None = None
    document: Document | None = None

    @property
    def size(self) -> int:
        """Its bytes, as far as they can be told without opening it."""
        try:
            return self.path.stat().st_size if self.document is None else 0
        except OSError:
            return 0


class _Plan:
    """What to read, in order, each file once."""

    def __init__(self) -> None:
        self.items: list[_Item] = []
        self.groups: list[_Group] = []
        self.skipped: list[Skipped] = []
        self._seen: set[str] = set()

    def add_stdin(self, text: str | None) -> None:
        if text is None or not text.strip():
            raise DocumentError(
                "there is no text on standard input", "pipe some in, as in: cat book.txt | nazx"
            )
        if self._is_new(STDIN):
            body = normalize_newlines(text.removeprefix("\ufeff"))
            self.items.append(_Item("stdin", Path(), document=Document("stdin", body, "text")))

    def add_file(self, name: str, path: Path) -> None:
        """A file named by itself: any fault is an error."""
        if self._is_new(str(path.resolve())):
            self.items.append(_Item(name, path))

    def add_members(self, spec: str, members: Iterable[tuple[str, Path]], empty: str) -> None:
        """Files found below a folder or by a glob: faulty ones are skipped, not errors."""
        group = _Group(spec, empty)
        self.groups.append(group)
        for name, path in members:
            if self._is_new(str(path.resolve())):
                self.items.append(_Item(name, path, group))
            else:
                group.any_good = True

    def _is_new(self, key: str) -> bool:
        if key in self._seen:
            return False
        self._seen.add(key)
        return True


def _read_all(plan: _Plan, on_progress: Callable[[int, int], None] | None) -> Gathered:
    documents: list[Document] = []
    skipped = plan.skipped
    sizes = [item.size for item in plan.items]
    total, before = sum(sizes), 0
    for item, size in zip(plan.items, sizes, strict=True):

        def report(done: int, _: int, before: int = before, size: int = size) -> None:
            if on_progress:
                on_progress(before + min(done, size), total)

        try:
            documents.append(item.document or read_file(item.name, item.path, report))
        except DocumentError as error:
            if item.group is None:
                hint = error.hint or _CAUSES.get(error.message, "give another file")
                raise DocumentError(f"{item.name} {error.message}", hint) from None
            skipped.append(Skipped(item.name, error.message))
        else:
            if item.group:
                item.group.any_good = True
        before += size
    for group in plan.groups:
        if not group.any_good:
            raise DocumentError(
                f"{group.spec} {group.empty}", "name a text file, or a folder that holds some"
            )
    return Gathered(tuple(documents), tuple(skipped))


def _nearest(name: str, path: Path) -> str:
    """A hint that names the closest file beside the missing one, if there is one."""
    parent = path.parent
    if not parent.is_dir():
        return f"there is no folder {parent} either; check the path"
    try:
        names = [p.name for p in parent.iterdir() if not p.name.startswith(".")]
    except OSError:
        return "check the path"
    by_lower = {n.lower(): n for n in names}
    close = difflib.get_close_matches(path.name.lower(), by_lower, n=1)
    if not close:
        return "check the path"
    return f"did you mean {Path(name).with_name(by_lower[close[0]])}?"
