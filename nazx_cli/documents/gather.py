"""From ``--file`` values to documents: files, folders without what their ``.gitignore`` files leave
out, globs, addresses of the web and standard input.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob, has_magic
from pathlib import Path

from nazx_cli.documents.document import Document, Gathered, Skipped
from nazx_cli.documents.file import read_bytes, read_file
from nazx_cli.documents.ignore import IgnoreRules
from nazx_cli.documents.text import normalize_newlines
from nazx_cli.documents.url import fetch, is_url, name_of
from nazx_cli.errors import DocumentError
from nazx_cli.foreign import expanded

STDIN = "-"
"""The ``--file`` value that stands for standard input."""

_SCRIPTS = frozenset((".js", ".mjs", ".cjs", ".css", ".map", ".svg"))
_BEGINNING, _UNBROKEN = 1 << 14, 1 << 12  # bytes of a script that are looked at, and of its lines

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

    A spec is a file, an address of the web, a folder (all that can be read below it, sorted; hidden
    entries and those that a ``.gitignore`` names left out), a glob (``**`` included), or ``-`` for
    ``stdin_text``. Of folders and globs minified scripts are left out.
    What a folder or glob holds that cannot be read is listed in ``skipped``; a spec that yields
    nothing is a DocumentError. ``on_progress`` is told bytes read and in all.
    """
    return read_all(listed(specs, stdin_text), on_progress)


def listed(specs: Sequence[str], stdin_text: str | None = None) -> Listing:
    """What ``gather`` reads, before anything is; errors as there for what is not to be found."""
    listing = Listing()
    for spec in specs:
        if spec == STDIN:
            listing.add_stdin(stdin_text)
            continue
        if is_url(spec):
            listing.add_url(spec)
            continue
        if not spec.strip():  # else the present folder, which nobody named
            raise DocumentError("a document's name is empty", "name a file, folder, glob or URL")
        try:
            _add(listing, spec, expanded(spec))
        except OSError as error:  # a name too long, a folder on the way that is closed to us
            shown = spec if len(spec) <= 80 else spec[:79] + "…"
            raise DocumentError(
                f"{shown} cannot be opened: {error.strerror or error}", "check the path"
            ) from None
    return listing


def _add(plan: Listing, spec: str, path: Path) -> None:
    if path.is_dir():
        files, skipped = _walk(spec, path)
        plan.skipped += skipped
        plan.add_members(spec, files, "has no readable text in it")
    elif has_magic(spec) and not os.path.lexists(path):
        files = [(name, Path(name)) for name in _globbed(path) if not Path(name).is_dir()]
        plan.add_members(spec, files, "matches no readable text file")
    elif os.path.lexists(path):
        plan.add_file(spec, path)
    else:
        raise DocumentError(f"there is no file {spec}", _nearest(spec, path))


@dataclass(frozen=True)
class Item:
    """A file to read, named by itself or by the folder or glob ``group``; or an address of the
    web, or a document that is there already."""

    name: str
    path: Path
    group: str | None = None
    document: Document | None = None
    url: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether it is to be read from ``path``."""
        return self.document is None and self.url is None

    @cached_property
    def state(self) -> os.stat_result | None:
        """What the system told of the file; None where it told nothing."""
        try:
            return self.path.stat() if self.is_file else None
        except OSError:
            return None

    @property
    def size(self) -> int:
        """Its bytes, as far as they can be told without opening it."""
        return self.state.st_size if self.state is not None else 0

    def left_out(self, error: DocumentError) -> Skipped:
        """What is said of a member of a folder or glob that ``error`` befell; of what was named by
        itself that is an error."""
        if self.group is None:
            hint = error.hint or _CAUSES.get(error.message, "give another file")
            raise DocumentError(f"{self.name} {error.message}", hint) from None
        return Skipped(self.name, error.message)


class Listing:
    """What to read, in order, each file once; ``skipped``: what is left out unread."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.skipped: list[Skipped] = []
        self._groups: dict[str, str] = {}  # what to say where none of one can be read
        self._good: set[str] = set()  # groups of which something is there by another name
        self._seen: set[str] = set()
        self._folders: dict[str, str] = {}  # where each really is

    @property
    def nbytes(self) -> int:
        """Bytes of all files, as far as they can be told without opening them."""
        return sum(item.size for item in self.items)

    def check(self, good: set[str]) -> None:
        """``DocumentError`` where a folder or glob has nothing that could be read: ``good`` are
        those of which something was."""
        for spec, empty in self._groups.items():
            if spec not in good and spec not in self._good:
                hint = "name a text file, or a folder that holds some"
                raise DocumentError(f"{spec} {empty}", hint)

    def add_stdin(self, text: str | None) -> None:
        if text is None or not text.strip():
            raise DocumentError(
                "there is no text on standard input", "pipe some in, as in: cat book.txt | nazx"
            )
        if self._is_new(STDIN):
            body = normalize_newlines(text.removeprefix("\ufeff"))
            self.items.append(Item("stdin", Path(), document=Document("stdin", body, "text")))

    def add_url(self, url: str) -> None:
        """A document on the web: any fault is an error."""
        if self._is_new(url):
            self.items.append(Item(name_of(url), Path(), url=url))

    def add_file(self, name: str, path: Path) -> None:
        """A file named by itself: any fault is an error."""
        if self._is_new(self._real(path)):
            self.items.append(Item(name, path))

    def add_members(self, spec: str, members: Iterable[tuple[str, Path]], empty: str) -> None:
        """Files found below a folder or by a glob: faulty ones are skipped, not errors."""
        self._groups[spec] = empty
        for name, path in members:
            item = Item(name, path, spec)
            if not self._is_new(self._real(path)):
                self._good.add(spec)
            elif item.state is not None and not stat.S_ISREG(item.state.st_mode):
                self.skipped.append(Skipped(name, "is no regular file"))
            elif path.suffix.lower() in _SCRIPTS and _is_minified(path):
                self.skipped.append(Skipped(name, "is minified"))
            else:
                self.items.append(item)

    def _real(self, path: Path) -> str:
        """Where a file really is; its folder is looked at once."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        real = os.path.join(self._folders[folder], name)  # noqa: PTH118 of very many files
        return os.path.realpath(real) if os.path.islink(real) else real  # noqa: PTH114

    def _is_new(self, key: str) -> bool:
        is_new = key not in self._seen
        self._seen.add(key)
        return is_new


def read_all(listing: Listing, on_progress: Callable[[int, int], None] | None = None) -> Gathered:
    """Read all of ``listing``, as ``gather`` does."""
    documents: list[Document] = []
    skipped, good = [*listing.skipped], set[str]()
    total, before = listing.nbytes, 0
    for item in listing.items:

        def report(done: int, _: int, before: int = before, size: int = item.size) -> None:
            if on_progress:
                on_progress(before + min(done, size), total)

        try:
            documents.append(read_item(item, report))
        except DocumentError as error:
            skipped.append(item.left_out(error))
        else:
            if item.group is not None:
                good.add(item.group)
        before += item.size
    listing.check(good)
    return Gathered(tuple(documents), tuple(skipped))


def read_item(item: Item, on_progress: Callable[[int, int], None]) -> Document:
    """Read one of a listing; the message of a ``DocumentError`` continues its name."""
    if item.document is not None:
        return item.document
    if item.url is None:
        return read_file(item.name, item.path, on_progress)
    return read_bytes(item.name, fetch(item.url))


def _is_minified(path: Path) -> bool:
    """Whether the beginning of a file has a line that is too long to have been written by hand."""
    try:
        with path.open("rb") as file:
            lines = file.read(_BEGINNING).splitlines()
    except OSError:
        return False
    return max(map(len, lines), default=0) >= _UNBROKEN


def _nearest(name: str, path: Path) -> str:
    """A hint that names the closest file beside the missing one, if there is one."""
    parent = path.parent
    if not parent.is_dir():
        return f"there is no folder {parent} either; check the path"
    try:
        names = {p.name.lower(): p.name for p in parent.iterdir() if not p.name.startswith(".")}
    except OSError:
        return "check the path"
    for close in difflib.get_close_matches(path.name.lower(), names, n=1):
        return f"did you mean {Path(name).with_name(names[close])}?"
    return "check the path"


def _globbed(pattern: Path) -> list[str]:
    """What matches, sorted; hidden names where the pattern has some. ``**`` enters no folder by a
    link, which may lead back."""
    parts = pattern.parts
    if "**" not in parts:
        return sorted(glob(str(pattern)))  # noqa: PTH207 which leaves hidden names out
    plain = next(number for number, part in enumerate(parts) if has_magic(part))
    base, below = Path(*parts[:plain]), [*parts[plain:], *["*"] * (parts[-1] == "**")]
    below = [part if part == "**" else re.sub(r"\*+", "*", part) for part in below]
    hidden = any(part.startswith(".") for part in below)
    found = base.glob("/".join(below))
    return sorted(
        str(path)
        for path in found
        if hidden or not any(part.startswith(".") for part in path.parts[plain:])
    )


def _walk(spec: str, folder: Path) -> tuple[list[tuple[str, Path]], list[Skipped]]:
    """Files below ``folder``, sorted by path, with the names to show them under; and what was
    left out without being opened.

    Hidden files and folders are left out, as is what a ``.gitignore`` names: one ``Skipped`` for
    each of its patterns, however much it matches.
    """
    files: list[tuple[str, Path]] = []
    skipped: list[Skipped] = []
    base = os.path.realpath(folder)
    rules = IgnoreRules(Path(base))
    ignored: dict[str, list[str]] = {}

    prefix, length = str(Path(spec, "x"))[:-1], len(os.path.join(base, ""))  # noqa: PTH118

    def shown(path: str) -> str:
        return prefix + path[length:]

    def refused(error: OSError) -> None:
        skipped.append(Skipped(shown(str(error.filename)), "may not be listed"))

    for at, folders, names in os.walk(base, onerror=refused):
        rules.enter(at)

        def kept(name: str, is_folder: bool, at: str = at) -> bool:
            if name.startswith("."):
                return False
            rule = rules.ignored_by(at, name, is_folder)
            if rule is not None:
                left_out = shown(f"{at}{os.sep}{name}") + os.sep * is_folder
                ignored.setdefault(rule, []).append(left_out)
            return rule is None

        folders[:] = [name for name in folders if kept(name, True)]
        here = [f"{at}{os.sep}{name}" for name in names if kept(name, False)]
        files += [(shown(path), Path(path)) for path in here]
    files.sort(key=lambda item: item[1].parts)
    for file in rules.cut_short:
        skipped.append(Skipped(str(file).replace(base, spec), "is long: its end was not looked at"))
    for rule, paths in sorted(ignored.items()):
        reason = f"ignored by {rule.replace(base, spec)}"
        if len(paths) == 1:
            skipped.append(Skipped(paths[0], f"is {reason}"))
        else:
            skipped.append(Skipped(f"{min(paths)} and {len(paths) - 1:,} more", f"are {reason}"))
    return files, skipped
