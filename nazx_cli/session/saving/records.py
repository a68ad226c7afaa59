"""What a session file holds: documents, turns and states as bytes, and back; what is new is
written in one transaction.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from nazx_cli.documents.content import dumps, key_of, loads, made
from nazx_cli.documents.document import Document, Origin, Place
from nazx_cli.index.finding import Finder, is_note, note_of
from nazx_cli.index.shelf import is_indexed
from nazx_cli.reading.passages import Passage
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.session.saving.database import (
    delete_unused,
    key_of_states,
    put_meta,
    read_meta,
    stored,
    transaction,
    used,
)
from nazx_cli.session.saving.packed import Packed, pack, unpack
from nazx_cli.session.settings import SessionSettings, Wishes
from nazx_cli.session.state import History, Message, Snapshot, State, Turn

if TYPE_CHECKING:
    from nazx_cli.session.saving.session_file import ModelTag
    from nazx_cli.tokenizer import Tokenizer

_COLUMNS = "document, tokens, ids, vocabulary, text, starts"
_MOST_WASTE = 32 << 20  # bytes of documents that no branch has; more do not wait for the end


class GoneError(ValueError):
    """A document that the index has no longer."""


def document_from(key: str, header: bytes, packed: Packed, finder: Finder) -> TokenizedDocument:
    """The document that was stored as ``key``; ``ValueError`` where it is another now, and
    ``GoneError`` where it lay in the index, and ``finder`` finds it there no longer."""
    data = loads(header)
    if is_note(data):
        if (indexed := finder.find(data, key)) is None:
            raise GoneError(data["name"])
        return indexed
    text, ids, starts = unpack(packed)
    places = [made(Place, {"start": start, "label": label}) for start, label in data["places"]]
    origin = made(Origin, data["origin"]) if data["origin"] else None
    whole = data | {"text": text, "places": tuple(places), "origin": origin}
    document = made(Document, whole)
    if len(ids) and not (ids.min() >= 0 <= starts.min() and starts.max() <= len(text)):
        raise ValueError(f"the tokens of {document.name} do not fit its text")
    tokenized = TokenizedDocument(document, ids, starts)
    if tokenized.content_key != key:
        raise ValueError(f"the text of {document.name} is not what was saved")
    return tokenized


def turn_from(key: str, row: bytes) -> Turn:
    """The turn that was stored as ``key``; ``ValueError`` where it is another now."""
    record = zlib.decompress(row)
    if key_of(record) != key:
        raise ValueError("a turn is not what was saved")
    data = loads(record)
    sources = tuple(made(Passage, passage) for passage in data["sources"])
    return made(Turn, data | {"message": made(Message, data["message"]), "sources": sources})


def state_record(state: State) -> bytes:
    """A state that names its documents and turns by their keys."""
    history = asdict(replace(state.history, turns=()))
    del history["turns"]
    return dumps(
        {
            "parts": [document.content_key for document in state.documents],
            "turns": [turn.content_key for turn in state.history.turns],
            "history": history,
            "settings": asdict(state.settings),
        }
    )


def state_from(
    record: Mapping[str, Any], documents: Mapping[str, TokenizedDocument], turns: Mapping[str, Turn]
) -> State:
    """The state of a ``state_record``, out of the documents and turns that it names."""
    settings = record["settings"]
    history = record["history"] | {"turns": tuple(turns[key] for key in record["turns"])}
    return State(
        tuple(documents[key] for key in record["parts"]),
        made(History, history),
        made(SessionSettings, settings | {"sampling": made(Wishes, settings["sampling"])}),
    )


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
    before = read_meta(database)
    stale = before is not None and before["model"]["tokenizer_sha256"] != model.tokenizer_sha256
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
    with transaction(database):
        if stale:  # ids of another tokenizer
            database.execute("DELETE FROM parts")
        database.executemany("INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        database.executemany(
            "INSERT INTO turns VALUES (?, ?)",
            [(key, zlib.compress(turn.record)) for key, turn in turns.items()],
        )
        _put_branches(database, states)
        _describe(database, branches[branch], branch, watched, model)
        if _waste(database) > _MOST_WASTE:
            delete_unused(database)


def restore(
    database: sqlite3.Connection,
    meta: Mapping[str, Any],
    tokenizer: Tokenizer | None = None,
    *,
    again: bool = False,
) -> tuple[Snapshot, dict[str, str]]:
    """All branches of the file whose ``meta`` this is, and what is watched; without the documents
    that the index has no longer, whose names come second, by their keys.

    ``again``: documents are tokenized again, by the ``tokenizer``. ``ValueError``, ``KeyError`` and
    the like for what is damaged.
    """
    records = read_branches(database, meta)
    keys = {key for each in records.values() for key in each["parts"]}
    with closing(Finder(tokenizer)) as finder:
        documents, gone = _documents(database, keys, finder)
    records = {name: _without(record, gone) for name, record in records.items()}
    if again and tokenizer is not None:
        documents = {
            key: each if is_indexed((each,)) else TokenizedDocument.build(each.document, tokenizer)
            for key, each in documents.items()
        }
    turns = read_turns(database, {key for each in records.values() for key in each["turns"]})
    branches = {name: state_from(record, documents, turns) for name, record in records.items()}
    watched = frozenset(map(_text, meta["watched"]))
    return Snapshot(branches, meta["branch"], watched), gone


def _without(record: Mapping[str, Any], gone: Mapping[str, str]) -> dict[str, Any]:
    return {**record, "parts": [key for key in record["parts"] if key not in gone]}


def check_ids(states: Iterable[State], vocab_size: int) -> None:
    """``ValueError`` where a document has a token that is none of a vocabulary of this size."""
    for document in {id(each): each for state in states for each in state.documents}.values():
        if is_indexed((document,)):
            continue  # tokenized by this very tokenizer; its ids are no more than asked for
        if len(document) and int(document.ids.max()) >= vocab_size:
            raise ValueError(f"{document.name} has tokens that the model does not know")


def read_branches(
    database: sqlite3.Connection, meta: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """The ``state_record`` of each branch, by its name; errors as ``restore``."""
    rows = list(database.execute("SELECT name, state FROM branches"))
    if meta["states"] != key_of_states(rows):
        raise ValueError("its branches are not what was saved")
    records = {_text(loads(name)): loads(record) for name, record in rows}
    if meta["branch"] not in records:
        raise ValueError(f"there is no branch {meta['branch']}")
    return records


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a name is a {type(value).__name__}")
    return value


def _describe(
    database: sqlite3.Connection,
    present: State,
    branch: str,
    watched: Iterable[str],
    model: ModelTag,
) -> None:
    """Have the file say what it holds, once it does."""
    saved = datetime.now(timezone.utc).isoformat()
    database.execute("INSERT OR IGNORE INTO meta VALUES ('created', ?)", (dumps(saved),))
    meta = {
        "model": asdict(model),
        "saved": saved,
        "states": key_of_states(database.execute("SELECT name, state FROM branches")),
        "branch": branch,
        "watched": sorted(watched),
        "turns": len(present.history.turns),
        "documents": len(present.documents),
        "tokens": present.num_tokens,
    }
    put_meta(database, meta)


def _row(key: str, document: TokenizedDocument) -> tuple[object, ...]:
    """A document as the columns of its table."""
    if note := note_of(document):
        header = dumps(loads(document.header) | note)
        return (key, header, len(document), 0, b"", b"", None, None)
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


def _waste(database: sqlite3.Connection) -> int:
    needed = used(database, "parts")
    sizes = database.execute("SELECT key, nbytes FROM parts")
    return sum(nbytes for key, nbytes in sizes if key not in needed)


def read_document(database: sqlite3.Connection, key: str) -> TokenizedDocument:
    """The document that is named ``key``; ``TypeError`` where there is none."""
    header, *packed = database.execute(
        f"SELECT {_COLUMNS} FROM parts WHERE key = ?", (key,)
    ).fetchone()
    with closing(Finder()) as finder:
        return document_from(key, header, Packed(*packed), finder)


def _documents(
    database: sqlite3.Connection, keys: set[str], finder: Finder
) -> tuple[dict[str, TokenizedDocument], dict[str, str]]:
    """The documents that are named ``keys``, and the names of those that are gone."""
    found: dict[str, TokenizedDocument] = {}
    gone: dict[str, str] = {}
    for key, header, *packed in database.execute(f"SELECT key, {_COLUMNS} FROM parts"):
        if key in keys:
            try:
                found[key] = document_from(key, header, Packed(*packed), finder)
            except GoneError as error:
                gone[key] = str(error)
    return found, gone


def read_turns(database: sqlite3.Connection, keys: set[str]) -> dict[str, Turn]:
    """The turns that are named ``keys``, by these."""
    rows = database.execute("SELECT key, turn FROM turns")
    return {key: turn_from(key, row) for key, row in rows if key in keys}
