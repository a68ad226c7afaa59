"""Writing a session into its file, what is new in one transaction, and reading it out."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from nazx_cli.reading.content import dumps, loads
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.session.saving.database import delete_unused, read_meta, stored, transaction, used
from nazx_cli.session.saving.records import (
    Packed,
    document_from,
    pack,
    state_from,
    state_record,
    turn_from,
)
from nazx_cli.session.timeline import Snapshot

if TYPE_CHECKING:
    from nazx_cli.session.saving.session_file import ModelTag
    from nazx_cli.session.state import State, Turn
    from nazx_cli.tokenizer import Tokenizer

_MOST_WASTE = 32 << 20  # bytes of documents that no branch has; more do not wait for the end


def save(
    database: sqlite3.Connection,
    branches: Mapping[str, State],
    branch: str,
    watched: Iterable[str],
    model: ModelTag,
) -> None:
    """Make the file hold exactly this; nothing of it if an error comes up.

    Raises ``sqlite3.Error`` where that fails.
    """
    before = read_meta(database).get("model")
    stale = before is not None and before["tokenizer_sha256"] != model.tokenizer_sha256
    states = {dumps(name): state_record(state) for name, state in branches.items()}
    known = set() if stale else stored(database, "parts")
    documents = {
        document.content_key: document
        for state in branches.values()
        for document in state.documents
        if document.content_key not in known
    }
    rows = [_row(key, document) for key, document in documents.items()]
    known = stored(database, "turns")
    turns = {
        turn.content_key: turn
        for state in branches.values()
        for turn in state.history.turns
        if turn.content_key not in known
    }
    meta = _meta(branches[branch], branch, watched, model)
    with transaction(database):
        if stale:  # ids of another tokenizer
            database.execute("DELETE FROM parts")
        database.executemany("INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        database.executemany(
            "INSERT INTO turns VALUES (?, ?)",
            [(key, zlib.compress(turn.record)) for key, turn in turns.items()],
        )
        _put_branches(database, states)
        _put_meta(database, meta)
        if _waste(database) > _MOST_WASTE:
            delete_unused(database)


def restore(
    database: sqlite3.Connection, meta: Mapping[str, Any], tokenizer: Tokenizer | None
) -> Snapshot:
    """All branches of the file whose ``meta`` this is, and what is watched.

    Documents are tokenized again where there is a ``tokenizer``. ``ValueError``, ``KeyError`` and
    the like for what is damaged.
    """
    rows = list(database.execute("SELECT name, state FROM branches"))
    records = [loads(record) for _, record in rows]
    documents = _documents(database, {key for each in records for key in each["parts"]}, tokenizer)
    turns = _turns(database, {key for each in records for key in each["turns"]})
    branches = {
        loads(name): state_from(record, documents, turns)
        for (name, _), record in zip(rows, records, strict=True)
    }
    if meta["branch"] not in branches:
        raise ValueError(f"there is no branch {meta['branch']}")
    return Snapshot(branches, meta["branch"], frozenset(meta["watched"]))


def _meta(
    present: State, branch: str, watched: Iterable[str], model: ModelTag
) -> dict[str, object]:
    """What the file says of the session as a whole."""
    return {
        "model": asdict(model),
        "saved": datetime.now(timezone.utc).isoformat(),
        "branch": branch,
        "watched": sorted(watched),
        "turns": len(present.history.turns),
        "documents": len(present.documents),
        "tokens": present.num_tokens,
    }


def _row(key: str, document: TokenizedDocument) -> tuple[object, ...]:
    """A document as the columns of its table."""
    packed = pack(document.text, document.ids, document.starts)
    whole = (packed.ids, packed.vocabulary, packed.text, packed.starts)
    return (key, document.header, packed.tokens, packed.nbytes, *whole)


def _put_branches(database: sqlite3.Connection, states: Mapping[bytes, bytes]) -> None:
    before = dict(database.execute("SELECT name, state FROM branches"))
    database.executemany(
        "DELETE FROM branches WHERE name = ?", [(name,) for name in before.keys() - states]
    )
    database.executemany(
        "REPLACE INTO branches VALUES (?, ?)",
        [item for item in states.items() if before.get(item[0]) != item[1]],
    )


def _put_meta(database: sqlite3.Connection, meta: Mapping[str, object]) -> None:
    rows = [(key, dumps(value)) for key, value in meta.items()]
    created = dumps(meta["saved"])
    database.execute("INSERT OR IGNORE INTO meta VALUES ('created', ?)", (created,))
    database.executemany("REPLACE INTO meta VALUES (?, ?)", rows)


def _waste(database: sqlite3.Connection) -> int:
    needed = used(database, "parts")
    sizes = database.execute("SELECT key, nbytes FROM parts")
    return sum(nbytes for key, nbytes in sizes if key not in needed)


def _documents(
    database: sqlite3.Connection, keys: set[str], tokenizer: Tokenizer | None
) -> dict[str, TokenizedDocument]:
    found: dict[str, TokenizedDocument] = {}
    rows = database.execute(
        "SELECT key, document, tokens, ids, vocabulary, text, starts FROM parts"
    )
    for key, header, *packed in rows:
        if key in keys:
            saved = document_from(key, header, Packed(*packed))
            found[key] = TokenizedDocument.build(saved.document, tokenizer) if tokenizer else saved
    return found


def _turns(database: sqlite3.Connection, keys: set[str]) -> dict[str, Turn]:
    rows = database.execute("SELECT key, turn FROM turns")
    return {key: turn_from(key, row) for key, row in rows if key in keys}
