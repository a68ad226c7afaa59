"""Saved sessions, damaged: bytes, rows, JSON inside them, the schema, and what lies beside them."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from cli_helpers import tiny_checkpoint
from reading_helpers import alice_text
from store_helpers import part_of, turn_of

from fuzz.law import MODEL, Case, Outcome
from fuzz.mutate import mutated, mutated_json
from nazx_cli.documents.content import dumps, key_of, loads
from nazx_cli.session.saving.database import key_of_states
from nazx_cli.session.saving.session_file import ModelTag
from nazx_cli.session.saving.store import Store
from nazx_cli.session.settings import SessionSettings
from nazx_cli.session.state import History, State

_FOLDER = "home/sessions"
_FILE = f"{_FOLDER}/work.nazx"
_ENVIRONMENT = {"NAZX_HOME": "home", "NAZX_MODEL": MODEL, "NAZX_OFFLINE": "1"}
_TABLES = {
    "meta": ("key", "value"),
    "branches": ("name", "state"),
    "turns": ("key", "turn"),
    "parts": ("key", "document", "tokens", "nbytes", "ids", "vocabulary", "text", "starts"),
}
_TOKENS = (b"SQLite format 3\0", b"CREATE TABLE", b"turns", b"parts", b"\x0d", b"\x05", b"x\x9c")
_STATEMENTS = (
    *(f"DELETE FROM {table}" for table in _TABLES),
    *(f"DELETE FROM {table} WHERE rowid = 1" for table in ("branches", "turns", "parts")),
    *(f"DROP TABLE {table}" for table in _TABLES),
    *(f"ALTER TABLE {table} RENAME TO other" for table in _TABLES),
    "DELETE FROM meta WHERE key = 'saved'",
    "DELETE FROM meta WHERE key = 'states'",
    "ALTER TABLE turns RENAME COLUMN turn TO other",
    "CREATE TRIGGER t AFTER INSERT ON turns BEGIN DELETE FROM parts; END",
    "CREATE TRIGGER t AFTER DELETE ON branches BEGIN DELETE FROM turns; END",
    "CREATE VIEW v AS SELECT * FROM turns",
    "CREATE TABLE more (x)",
    "CREATE INDEX i ON turns (turn)",
    "PRAGMA user_version = 0",
    "PRAGMA user_version = -1",
    "PRAGMA user_version = 1",
    "PRAGMA user_version = 7",
    "PRAGMA application_id = 1",
    "PRAGMA journal_mode = WAL",
)
_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("sessions",),
    ("sessions", "--json"),
    ("sessions", "show", "work"),
    ("sessions", "show", "work", "--json"),
    ("sessions", "search", "question", "1"),
    ("sessions", "export", "work", "--format", "json"),
    ("sessions", "repair", "work"),
    ("sessions", "repair", "work", "--json"),
    ("sessions", "rm", "work", "--yes"),
    ("ask", "--session", "work", "--max-tokens", "1", "why?"),
    ("ask", "--continue", "--json", "why?"),
    ("ask", "--session", "work", "--model", MODEL, "--force", "why?"),
    ("chat", "--session", "work", "--max-tokens", "1"),
)


def cases(rng: random.Random) -> Iterator[Case]:
    """Each command on each kind of damage."""
    for number in count():
        kind = _KINDS[number % len(_KINDS)]
        case = kind(rng, rng.choice(_COMMANDS))
        yield replace(case, may_change=("home", "work.json"), env=_ENVIRONMENT, stdin=b"why?\n")


def _bytes_differ(rng: random.Random, command: tuple[str, ...]) -> Case:
    others = (saved(0), saved(1))
    return _case("bytes", command, mutated(rng, rng.choice(others), _TOKENS, others))


def _a_row_differs(rng: random.Random, command: tuple[str, ...]) -> Case:
    return _case("row", command, _changed(rng, lambda file: _change_row(rng, file)))


def _the_schema_differs(rng: random.Random, command: tuple[str, ...]) -> Case:
    statement = rng.choice(_STATEMENTS)
    return _case(statement, command, _changed(rng, lambda file: file.execute(statement)))


def _something_lies_beside(rng: random.Random, command: tuple[str, ...]) -> Case:
    end = rng.choice(("-journal", "-journal", "-wal", "-shm"))
    beside = mutated(rng, _journal(), _TOKENS, (saved(1),)) if rng.random() < 0.8 else _journal()
    case = _case(f"beside: {end}", command, saved(0))
    return replace(case, files={**case.files, f"{_FILE}{end}": beside})


def _it_is_no_file(rng: random.Random, command: tuple[str, ...]) -> Case:
    make = rng.choice((_fifo, _folder, _loop, _device, _empty, _locked))
    case = replace(_case(make.__name__, command, saved(0)), prepare=make, after=None)
    return replace(case, files={}) if make in (_fifo, _folder, _loop, _device) else case


_KINDS = (
    *(_bytes_differ, _a_row_differs, _a_row_differs, _the_schema_differs),
    *(_something_lies_beside, _it_is_no_file),
)


def _case(name: str, command: tuple[str, ...], data: bytes) -> Case:
    def nothing_is_lost(folder: Path, outcome: Outcome) -> None:
        path = folder / _FILE
        if command[:2] == ("sessions", "rm"):
            return
        kept = [path, *path.parent.glob("work.nazx.damaged*"), *path.parent.glob(".work.before")]
        is_read = command[0] == "sessions" and command[1:2] != ("repair",)
        if is_read or outcome.code:
            assert any(each.read_bytes() == data for each in kept), "the session was changed"
        assert len(kept) > 1 or path.read_bytes() == data or _turns(path) >= _turns_of(data), (
            "turns are lost"
        )

    return Case(f"{name}: {' '.join(command)}", command, {_FILE: data}, after=nothing_is_lost)


def _turns(path: Path) -> set[tuple[object, object]]:
    """What was asked and answered in the turns that a file has, if SQLite can read it."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
            return {_said(row) for (row,) in file.execute("SELECT turn FROM turns")}
    except (sqlite3.Error, ValueError):
        return set()


def _said(row: bytes) -> tuple[object, object]:
    """Question and answer: what else a turn says may be written in another way than it was."""
    try:
        turn = json.loads(zlib.decompress(row))
        return str(turn["question"]), str(turn["answer"])
    except (zlib.error, ValueError, TypeError, KeyError):
        return row, None


def _turns_of(data: bytes) -> set[tuple[object, object]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "copy")
        path.write_bytes(data)
        return _turns(path)


@cache
def saved(seed: int) -> bytes:
    """A session of the tiny model, with two branches."""
    with tempfile.TemporaryDirectory() as folder:
        tag = ModelTag.of(tiny_checkpoint(Path(folder, "model")), MODEL)
        with Store(Path(folder)).open("work", create=True) as file:
            text = f"{alice_text()[: 900 + seed]} 漢字かな交じり。 αβγ жзий 👩‍👩‍👧"
            state = _state(text, range(seed, seed + 3))
            side = _state(text[::-1], range(seed, seed + 1))
            file.save({"main": state, "side": side}, "main", {"/tmp/a.txt"}, tag)
        return Path(folder, "work.nazx").read_bytes()


def _state(text: str, turns: range) -> State:
    """Settings under which the tiny model says little."""
    documents = (part_of("a.txt", text, bytewise=True), part_of("b.txt", "words", bytewise=True))
    history = History(tuple(turn_of(number, text[:100]) for number in turns), 1, 0)
    return State(documents, history, SessionSettings("Be brief.", max_tokens=1, read="recall"))


@cache
def _journal() -> bytes:
    """What the file has beside it while it is written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "work.nazx")
        path.write_bytes(saved(0))
        with closing(sqlite3.connect(path, isolation_level=None)) as file:
            file.execute("PRAGMA cache_size = 1")
            file.execute("BEGIN")
            file.execute("UPDATE parts SET tokens = 1")
            file.execute("UPDATE turns SET turn = zeroblob(100000)")
            return path.with_name("work.nazx-journal").read_bytes()


def _changed(rng: random.Random, change: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "work.nazx")
        path.write_bytes(saved(rng.randrange(2)))
        with closing(sqlite3.connect(path, isolation_level=None)) as file:
            change(file)
        return path.read_bytes()


def _change_row(rng: random.Random, file: sqlite3.Connection) -> None:
    """A value of a row: another type, other bytes, or other JSON, mostly signed anew."""
    table = rng.choice(list(_TABLES))
    column = rng.choice(_TABLES[table])
    key = _TABLES[table][0]
    name, value = rng.choice(file.execute(f"SELECT {key}, {column} FROM {table}").fetchall())
    new = _other_value(rng, value)
    try:
        file.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (new, name))
    except sqlite3.IntegrityError:
        return
    if rng.random() < 0.7:
        _sign(file)


def _other_value(rng: random.Random, value: Any) -> Any:
    if rng.random() < 0.2 or not isinstance(value, bytes):
        return rng.choice((None, 0, -1, 2**62, 1.5, "", "text", "\x1b[2J", b"", b"[]", b"\xff"))
    data, is_packed = value, value[:1] == b"x"
    if is_packed:
        data = zlib.decompress(value)
    try:
        data = dumps(mutated_json(rng, loads(data)))
    except (ValueError, RecursionError):
        data = mutated(rng, data)
    return zlib.compress(data) if is_packed else data


def _sign(file: sqlite3.Connection) -> None:
    """Give turns and branches the keys of what they are now."""
    for key, turn in file.execute("SELECT key, turn FROM turns").fetchall():
        try:
            new = key_of(zlib.decompress(turn))
        except (TypeError, zlib.error):
            continue
        file.execute("UPDATE OR IGNORE turns SET key = ? WHERE key = ?", (new, key))
        file.execute("UPDATE branches SET state = replace(state, ?, ?)", (str(key), new))
        file.execute("UPDATE branches SET state = cast(state AS BLOB)")
    try:
        signed = key_of_states(file.execute("SELECT name, state FROM branches"))
    except TypeError:
        return
    file.execute("REPLACE INTO meta VALUES ('states', ?)", (dumps(signed),))


def _fifo(folder: Path) -> None:
    os.mkfifo(_place(folder))


def _folder(folder: Path) -> None:
    _place(folder).mkdir()


def _loop(folder: Path) -> None:
    _place(folder).symlink_to("work.nazx")


def _device(folder: Path) -> None:
    _place(folder).symlink_to("/dev/zero")


def _empty(folder: Path) -> None:
    _place(folder).write_bytes(b"")


def _locked(folder: Path) -> None:
    """A folder where the lock should be."""
    (_place(folder).with_name(".work.lock")).mkdir()


def _place(folder: Path) -> Path:
    path = folder / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
