"""Saving what can be read of a damaged session; the damaged file itself is kept as it was."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from nazx_cli.documents.content import key_of, loads, made
from nazx_cli.errors import NazxError
from nazx_cli.index.finding import Finder
from nazx_cli.names import DEFAULT_MODEL, MAIN_BRANCH
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.session.saving import records
from nazx_cli.session.saving.database import (
    MIGRATIONS,
    NOT_AS_WRITTEN,
    checked_version,
    connect,
    copy,
    create,
    damage_explained,
    delete,
    explained,
    key_of_states,
    parts_of,
    read_meta,
    require_file,
)
from nazx_cli.session.saving.packed import Packed
from nazx_cli.session.saving.session_file import ModelTag, info_of
from nazx_cli.session.settings import SessionSettings
from nazx_cli.session.state import History, State, Turn

_UNREADABLE = (sqlite3.Error, *NOT_AS_WRITTEN)
_MAGIC = b"SQLite format 3\0" + (4096).to_bytes(2, "big") + bytes((1, 1, 0, 64, 32, 32))
_FIXED = {44: 4, 56: 1}  # at which byte of the file: the schema's format, and UTF-8
_RECOVERED = "recovered"
_MOST_ROWS = 1 << 16


@dataclass(frozen=True)
class Repair:
    """What a repair has done: what the session holds now, and what of it is ``lost``, in words.

    ``kept`` is where the damaged file lies; None: it was whole, and nothing was done.
    """

    turns: int
    documents: int
    lost: tuple[str, ...] = ()
    kept: Path | None = None


def repair(path: Path) -> Repair:
    """Replace the session file at ``path``, which nobody has open, by what can be read of it.

    ``NazxError`` where that is nothing, or where it is no session that this NazX can read.
    """
    scratch, new = (path.with_name(f".{path.stem}.{end}") for end in ("damaged", "repaired"))
    with explained(path):
        require_file(path)
        try:
            copy(path, scratch)  # reading may change a file: what was begun is taken back
            if (whole := _as_whole(scratch, path)) is not None:
                return whole
            return _replaced(path, new, _Salvage.of(scratch, path))
        finally:
            delete(scratch)
            delete(new)


def _as_whole(scratch: Path, path: Path) -> Repair | None:
    """What the session holds where nothing is wrong with it."""
    try:
        with damage_explained(path), closing(connect(scratch)) as database:
            if not checked_version(database, path) or (meta := read_meta(database)) is None:
                return Repair(0, 0)
            info_of(path, meta)
            saved, _ = records.restore(database, meta)
            (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    except NazxError:
        return None
    return _told(saved.branches) if verdict == "ok" else None


def _replaced(path: Path, new: Path, found: _Salvage) -> Repair:
    delete(new)
    with closing(create(new)) as database:
        branch = found.branch if found.branch in found.branches else next(iter(found.branches))
        records.save(database, found.branches, branch, found.watched, found.model)
    kept = _free_name(path)
    copy(path, kept)
    for beside in parts_of(path)[1:]:  # they would be played back into the new file
        beside.unlink(missing_ok=True)
    new.replace(path)
    return _told(found.branches, tuple(found.lost), kept)


def _told(
    branches: Mapping[str, State], lost: tuple[str, ...] = (), kept: Path | None = None
) -> Repair:
    turns = {turn.content_key for state in branches.values() for turn in state.history.turns}
    documents = {each.content_key for state in branches.values() for each in state.documents}
    return Repair(len(turns), len(documents), lost, kept)


def _free_name(path: Path) -> Path:
    name, number = f"{path.name}.damaged", 1
    while path.with_name(name).exists():
        number += 1
        name = f"{path.name}.damaged-{number}"
    return path.with_name(name)


class _Salvage:
    """All that can be read of a database that may be damaged anywhere."""

    def __init__(self, database: sqlite3.Connection) -> None:
        database.text_factory = lambda text: text.decode("utf-8", "replace")
        self._database = database
        self.lost: list[str] = []
        self.turns = self._read_turns()
        self.documents = self._read_documents()
        meta = self._read_meta()
        self.model = self._model(meta)
        watched = meta.get("watched")
        paths = watched if isinstance(watched, list) else []
        self.watched = [path for path in paths if isinstance(path, str)]
        self.branch = str(meta.get("branch"))
        self.branches: dict[str, State] = {}
        self._used: set[str] = set()
        self._read_branches(meta.get("states"))

    @classmethod
    def of(cls, scratch: Path, path: Path) -> _Salvage:
        """What is left in the file at ``scratch``, a copy of the one at ``path``."""
        try:
            found: _Salvage | None = cls._from(scratch, path)
        except _UNREADABLE:
            _mend_header(scratch)
            try:
                found = cls._from(scratch, path)
            except sqlite3.OperationalError:  # the disk's fault, say
                raise
            except _UNREADABLE:
                found = None
        if found is None or not (found.turns or found.documents):
            raise NazxError(
                f"nothing of session {path.stem} can be read; it is left as it is",
                f"remove it with: nazx sessions rm {quote(path.stem)}",
            )
        return found

    @classmethod
    def _from(cls, scratch: Path, path: Path) -> _Salvage:
        # It makes SQLite read a file whose end is lost.
        with closing(connect(scratch, "writable_schema = ON")) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS) or not {"turns", "parts"} & tables:
                checked_version(database, path)  # says why it is not ours to read
            return cls(database)

    def _read_turns(self) -> dict[str, Turn]:
        rows = self._rows("turns", "turn")
        found: dict[str, Turn] = {}
        for (row,) in rows:
            with suppress(*_UNREADABLE):
                key = key_of(zlib.decompress(row))
                found[key] = records.turn_from(key, row)
        if bad := len(rows) - len(found):
            self.lost.append(f"{bad} turns" if bad > 1 else "a turn")
        return found

    def _read_documents(self) -> dict[str, TokenizedDocument]:
        found: dict[str, TokenizedDocument] = {}
        columns = "key, document, tokens, ids, vocabulary, text, starts"
        with closing(Finder()) as finder:
            for key, header, *packed in self._rows("parts", columns):
                try:
                    found[key] = records.document_from(key, header, Packed(*packed), finder)
                except records.GoneError as error:
                    self.lost.append(f"the document {error}, which the index has no longer")
                except _UNREADABLE:
                    self.lost.append(f"the document {_name_in(header)}".rstrip())
        return found

    def _read_meta(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        try:
            for key, value in self._database.execute("SELECT key, value FROM meta"):
                try:
                    found[key] = loads(value)
                except _UNREADABLE:
                    continue
        except _UNREADABLE:
            pass
        return found

    def _model(self, meta: Mapping[str, Any]) -> ModelTag:
        try:
            return made(ModelTag, meta["model"])
        except _UNREADABLE:
            self.lost.append("which model it was made with (open it with -m NAME --force)")
            return ModelTag(DEFAULT_MODEL, "", "")

    def _read_branches(self, signed: object) -> None:
        rows = [(name, state) for name, state in self._rows("branches", "name, state")]
        for name, state in rows:
            # One that cannot be read is missed below, in what was signed.
            with suppress(*_UNREADABLE):
                self._add_branch(str(loads(name)), loads(state))
        with suppress(*_UNREADABLE):
            if self.branches and signed == key_of_states(rows):
                return
        unnamed = [turn for key, turn in self.turns.items() if key not in self._used]
        others = [each for key, each in self.documents.items() if key not in self._used]
        if not self.branches or unnamed or others:
            name = _RECOVERED if self.branches else MAIN_BRANCH
            self.lost.append(f"which turns belong together: some are in the branch {name}")
            self.branches[name] = State(tuple(others), History(tuple(unnamed)))

    def _add_branch(self, name: str, record: Mapping[str, Any]) -> None:
        turns, documents = _keys(record, "turns"), _keys(record, "parts")
        here = {
            "turns": [key for key in turns if key in self.turns],
            "parts": [key for key in documents if key in self.documents],
        }
        missing = len(turns) + len(documents) - len(here["turns"]) - len(here["parts"])
        if missing:
            self.lost.append(f"{missing} of the turns and documents of the branch {name}")
        try:
            state = records.state_from({**record, **here}, self.documents, self.turns)
        except _UNREADABLE:
            self.lost.append(f"the settings of the branch {name}")
            usual = {"settings": asdict(SessionSettings()), "history": {}}
            state = records.state_from({**usual, **here}, self.documents, self.turns)
        self.branches[name] = state
        self._used.update(here["turns"], here["parts"])

    def _rows(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        """Every row that can be read, oldest first: what stands behind a damaged page is reached
        from the other end, or by its number."""
        found: dict[int, tuple[Any, ...]] = {}
        query = f"SELECT rowid, {columns} FROM {table}"
        for order in ("ASC", "DESC"):
            with suppress(*_UNREADABLE):
                for number, *row in self._database.execute(f"{query} ORDER BY rowid {order}"):
                    found[number] = tuple(row)
        for number in _between(found):
            with suppress(*_UNREADABLE):
                for _, *row in self._database.execute(f"{query} WHERE rowid = ?", (number,)):
                    found[number] = tuple(row)
        return [found[number] for number in sorted(found)]


def _between(found: Mapping[int, object]) -> Iterator[int]:
    """Numbers of rows that were not met; those of removed rows, and maybe of damaged ones."""
    last = min(max(found, default=0), _MOST_ROWS)
    return (number for number in range(1, last) if number not in found)


def _keys(record: Mapping[str, Any], name: str) -> list[str]:
    return [key for key in record[name] if isinstance(key, str)]


def _name_in(header: bytes) -> str:
    try:
        return str(loads(header)["name"])
    except _UNREADABLE:
        return ""


def _mend_header(path: Path) -> None:
    """Write what the beginning of each of our files is the same in; damage there hides all."""
    with path.open("r+b") as file:
        file.write(_MAGIC)
        for offset, value in _FIXED.items():
            file.seek(offset)
            file.write(value.to_bytes(4, "big"))
