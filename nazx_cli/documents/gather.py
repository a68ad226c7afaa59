"""From ``--file`` values to documents: files, folders, globs and standard input."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path

from nazx_cli.documents.document import Document, Gathered, Skipped
from nazx_cli.documents.readers import HEAD, choose_reader
from nazx_cli.documents.text import normalize_newlines
from nazx_cli.errors import DocumentError

STDIN = "-"
"""The ``--file`` value that stands for standard input."""

_CAUSES = {  # what a reader can say -> what to do about it
    "is a binary file": "give a text file",
    "is in an encoding that cannot be told": "convert it to UTF-8 first, as iconv does",
}


def gather(specs: Sequence[str], stdin_text: str | None = None) -> Gathered:
    """Read every document that ``specs`` names, in their order, each once.

    A spec is a file, a folder (all readable text below it, sorted, hidden entries left out), a
    glob (``**`` included), or ``-`` for ``stdin_text``. What a folder or glob holds that is no
    text is listed in ``skipped``; a spec that yields nothing is a DocumentError.
    """
    found = _Collection()
    for spec in specs:
        if spec == STDIN:
            found.add_stdin(stdin_text)
            continue
        try:
            _add(found, spec, _with_home(spec))
        except OSError as error:  # a name too long, a folder on the way that is closed to us
            shown = spec if len(spec) <= 80 else spec[:79] + "…"
            raise DocumentError(
                f"{shown} cannot be opened: {error.strerror or error}", "check the path"
            ) from None
    return Gathered(tuple(found.documents), tuple(found.skipped))


def _add(found: _Collection, spec: str, path: Path) -> None:
    if path.is_dir():
        found.add_members(spec, _walk(spec, path, found.skipped), "has no readable text in it")
    elif has_magic(spec) and not os.path.lexists(path):
        found.add_members(spec, _expand(path), "matches no readable text file")
    else:
        found.add_file(spec, path)


def _with_home(spec: str) -> Path:
    """``spec`` with ``~`` expanded, where it names a home folder that there is."""
    try:
        return Path(spec).expanduser()
    except RuntimeError:
        return Path(spec)


class _Collection:
    """Documents so far, and the resolved paths that they came from."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.skipped: list[Skipped] = []
        self._seen: set[str] = set()

    def add_stdin(self, text: str | None) -> None:
        if text is None or not text.strip():
            raise DocumentError(
                "there is no text on standard input", "pipe some in, as in: cat book.txt | nazx"
            )
        if self._is_new(STDIN):
            body = normalize_newlines(text.removeprefix("\ufeff"))
            self.documents.append(Document("stdin", body, "text"))

    def add_file(self, name: str, path: Path) -> None:
        """A file named by itself: any fault is an error."""
        if not os.path.lexists(path):
            raise DocumentError(f"there is no file {name}", _nearest(name, path))
        if not self._is_new(str(path.resolve())):
            return
        try:
            self.documents.append(_read(name, path))
        except DocumentError as error:
            hint = error.hint or _CAUSES.get(error.message, "give another file")
            raise DocumentError(f"{name} {error.message}", hint) from None

    def add_members(self, spec: str, members: Iterator[tuple[str, Path]], empty: str) -> None:
        """Files found below a folder or by a glob: faulty ones are skipped, not errors."""
        any_good = False
        for name, path in members:
            if not self._is_new(str(path.resolve())):
                any_good = True
                continue
            try:
                self.documents.append(_read(name, path))
                any_good = True
            except DocumentError as error:
                self.skipped.append(Skipped(name, error.message))
        if not any_good:
            raise DocumentError(f"{spec} {empty}", "name a text file, or a folder that holds some")

    def _is_new(self, key: str) -> bool:
        if key in self._seen:
            return False
        self._seen.add(key)
        return True


def _read(name: str, path: Path) -> Document:
    """The document at ``path``; a DocumentError's message continues the file's name."""
    try:
        if path.is_char_device() or path.is_block_device() or path.is_socket():
            raise DocumentError("is a device, not a file")
        data = path.read_bytes()
    except PermissionError:
        raise DocumentError("may not be read", "check its permissions") from None
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror or error}") from None
    if not data:
        raise DocumentError("is empty")
    reader = choose_reader(data[:HEAD], path.suffix.lower())
    text = reader.read(data)
    if not text or text.isspace():
        raise DocumentError("is empty")
    return Document(name, text, reader.format)


def _walk(spec: str, folder: Path, skipped: list[Skipped]) -> Iterator[tuple[str, Path]]:
    """Files below ``folder``, sorted by path, hidden ones and those in hidden folders left out."""

    def refused(error: OSError) -> None:
        skipped.append(Skipped(str(error.filename), "may not be listed"))

    files: list[Path] = []
    for at, folders, names in os.walk(folder, onerror=refused):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files.extend(Path(at) / name for name in names if not name.startswith("."))
    for path in sorted(files, key=lambda p: p.parts):
        yield str(Path(spec) / path.relative_to(folder)), path


def _expand(pattern: Path) -> Iterator[tuple[str, Path]]:
    # glob.glob, for Path.glob takes no absolute patterns and finds hidden files
    for name in sorted(glob(str(pattern), recursive=True)):  # noqa: PTH207
        if not Path(name).is_dir():
            yield name, Path(name)


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
