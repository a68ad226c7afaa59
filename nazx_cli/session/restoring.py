"""Reading a session out of its file."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nazx_cli.errors import NazxError, UsageError, first_line
from nazx_cli.session.database import checked_version, connect, damaged, explained
from nazx_cli.session.jsonbytes import loads
from nazx_cli.session.packing import Packed
from nazx_cli.session.saved import ModelTag, Saved, SessionInfo

if TYPE_CHECKING:
    from nazx_cli.reading.part import Part
    from nazx_cli.session.history import Turn
    from nazx_cli.tokenizer import Tokenizer

_NOT_AS_WRITTEN = (LookupError, ValueError, TypeError, AttributeError, OverflowError, zlib.error)


def restore(
    database: sqlite3.Connection, path: Path, tokenizer: Tokenizer, model: ModelTag, force: bool
) -> Saved | None:
    """What ``SessionFile.load`` returns, out of the open file ``path``."""
    with reading(path):
        meta = _meta(database)
        if "saved" not in meta:
            return None
        before = ModelTag(**meta["model"])
    difference = before.difference(model)
    if difference and not force:
        raise _other_model(path.stem, before, model, difference)
    with reading(path):
        same = before.tokenizer_sha256 == model.tokenizer_sha256
        return _saved(database, meta, None if same else tokenizer)


def read_info(path: Path, open_by: int | None) -> SessionInfo | None:
    """What a list says of the session file ``path``; None where nothing was saved there yet."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    try:
        with reading(path), closing(connect(path)) as database:
            if not checked_version(database, path) or "saved" not in (meta := _meta(database)):
                return None
            return SessionInfo(
                path.stem,
                str(meta["model"]["name"]),
                int(meta["turns"]),
                int(meta["documents"]),
                int(meta["tokens"]),
                datetime.fromisoformat(meta["saved"]).astimezone(timezone.utc),
                stat.st_size,
                open_by,
            )
    except NazxError as error:
        changed = datetime.fromtimestamp(stat.st_mtime, timezone.utc)
        return SessionInfo(path.stem, "", 0, 0, 0, changed, stat.st_size, open_by, error.message)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a file can be like that was not written so into one line with a next step."""
    try:
        with explained(path):
            yield
    except _NOT_AS_WRITTEN as error:
        missing = isinstance(error, LookupError)  # whose text is no more than a key
        raise damaged(path, "a piece is missing" if missing else first_line(error)) from None


def _meta(database: sqlite3.Connection) -> dict[str, Any]:
    rows = database.execute("SELECT key, value FROM meta")
    return {key: loads(value) for key, value in rows}


def _saved(
    database: sqlite3.Connection, meta: dict[str, Any], tokenizer: Tokenizer | None
) -> Saved:
    """All branches; documents are tokenized again where there is a ``tokenizer``."""
    from nazx_cli.session.records import state_from

    rows = list(database.execute("SELECT name, state FROM branches"))
    states = [loads(record) for _, record in rows]
    parts = _parts(database, {key for state in states for key in state["parts"]}, tokenizer)
    turns = _turns(database, {key for state in states for key in state["turns"]})
    branches = {loads(name): state_from(record, parts, turns) for name, record in rows}
    if meta["branch"] not in branches:
        raise ValueError(f"there is no branch {meta['branch']}")
    return Saved(branches, meta["branch"], frozenset(meta["watched"]))


def _parts(
    database: sqlite3.Connection, keys: set[str], tokenizer: Tokenizer | None
) -> dict[str, Part]:
    from nazx_cli.reading.part import Part
    from nazx_cli.session.records import part_from

    found: dict[str, Part] = {}
    rows = database.execute(
        "SELECT key, document, tokens, ids, vocabulary, text, starts FROM parts"
    )
    for key, document, *packed in rows:
        if key in keys:
            part = part_from(key, document, Packed(*packed))
            found[key] = Part.build(part.document, tokenizer) if tokenizer else part
    return found


def _turns(database: sqlite3.Connection, keys: set[str]) -> dict[str, Turn]:
    from nazx_cli.session.records import turn_from

    rows = database.execute("SELECT key, turn FROM turns")
    return {key: turn_from(key, row) for key, row in rows if key in keys}


def _other_model(name: str, before: ModelTag, now: ModelTag, difference: str) -> UsageError:
    if before.name == now.name:
        return UsageError(
            f"session {name} was saved before {now.name} changed: {difference}",
            "add --force to use it with the model as it is now",
        )
    return UsageError(
        f"session {name} was saved with {before.name}; {now.name} is another model: {difference}",
        f"use -m {before.name}, or add --force to use it with {now.name}",
    )
