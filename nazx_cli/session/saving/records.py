"""What a session file holds: documents, turns and states as bytes, and back; what is new is
written in one transaction.

A tokenized document comes back without the tokenizer or the file it was read from. Each token
stands for the stretch of text from its first character to that of the next. A token mostly stands
for the same stretch wherever it is, so the text and the tokens' starts follow from the ids, one
stretch for each distinct id, and the exceptions. Where there are too many of those (a script of
which most characters take several tokens) text and starts are kept as they are.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nazx_cli.documents.document import Document, Origin, Place
from nazx_cli.engine.sampling import Sampling
from nazx_cli.reading.content import dumps, key_of, loads
from nazx_cli.reading.passages import Passage
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.session.saving.database import delete_unused, read_meta, stored, transaction, used
from nazx_cli.session.settings import SessionSettings
from nazx_cli.session.state import History, Message, Snapshot, State, Turn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.session.saving.session_file import ModelTag
    from nazx_cli.tokenizer import Tokenizer

_STEP = 1 << 18  # tokens at a time: a list of their stretches takes about 70 bytes each
_MOST_EXCEPTIONS = 0.25  # of the tokens; more take more room than the text
_T = TypeVar("_T")
_MOST_WASTE = 32 << 20  # bytes of documents that no branch has; more do not wait for the end


def document_from(key: str, header: bytes, packed: Packed) -> TokenizedDocument:
    """The document that was stored as ``key``; ``ValueError`` where it is another now."""
    data = loads(header)
    text, ids, starts = unpack(packed)
    places = tuple(Place(start, label) for start, label in data["places"])
    origin = _made(Origin, data["origin"]) if data["origin"] else None
    document = Document(data["name"], text, data["format"], places, origin)
    tokenized = TokenizedDocument(document, ids, starts)
    if tokenized.content_key != key:
        raise ValueError(f"the text of {data['name']} is not what was saved")
    return tokenized


def turn_from(key: str, row: bytes) -> Turn:
    """The turn that was stored as ``key``; ``ValueError`` where it is another now."""
    record = zlib.decompress(row)
    if key_of(record) != key:
        raise ValueError("a turn is not what was saved")
    data = loads(record)
    sources = tuple(_made(Passage, passage) for passage in data["sources"])
    return _made(Turn, data | {"message": _made(Message, data["message"]), "sources": sources})


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
        _made(History, history),
        _made(SessionSettings, settings | {"sampling": _made(Sampling, settings["sampling"])}),
    )


def _made(kind: type[_T], data: Mapping[str, Any]) -> _T:
    """A dataclass from its fields; one that the record lacks is newer and has its default."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in data.items() if name in names})


@dataclass(frozen=True)
class Packed:
    """A packed document of ``tokens`` tokens.

    ``ids`` are places in the ``vocabulary``; ``text`` and ``starts`` are None where they follow.
    """

    tokens: int
    ids: bytes
    vocabulary: bytes
    text: bytes | None = None
    starts: bytes | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        blobs = (self.ids, self.vocabulary, self.text, self.starts)
        return sum(len(blob) for blob in blobs if blob is not None)


def pack(text: str, ids: NDArray[np.int32], starts: NDArray[np.int32]) -> Packed:
    """Pack a ``text`` whose tokens ``ids`` (n,) begin at the characters ``starts`` (n,)."""
    distinct, places, first = _distinct(ids)
    bounds = np.append(starts, np.int32(len(text)))
    stretches = [text[bounds[at] : bounds[at + 1]] for at in first.tolist()]
    exceptions = _exceptions(text, bounds, places, stretches)
    words: dict[str, Any] = {"ids": np.diff(distinct, prepend=0).tolist()}
    if exceptions is not None:
        words |= {"head": text[: bounds[0]], "stretches": stretches, "exceptions": exceptions}
    packed_ids = _compressed(places.astype(_kind_of(len(distinct))).tobytes())
    vocabulary = _compressed(dumps(words))
    if exceptions is not None:
        return Packed(len(ids), packed_ids, vocabulary)
    steps = np.diff(starts.astype("<i4"), prepend=np.int32(0))
    whole = text.encode("utf-8", "surrogatepass")
    return Packed(len(ids), packed_ids, vocabulary, _compressed(whole), _compressed(steps))


def unpack(packed: Packed) -> tuple[str, NDArray[np.int32], NDArray[np.int32]]:
    """Text, ids and starts; ``ValueError``, ``KeyError`` and the like for what is damaged."""
    words = loads(zlib.decompress(packed.vocabulary))
    distinct = np.cumsum(np.asarray(words["ids"], np.int64)).astype(np.int32)
    places = _spread(packed.ids, _kind_of(len(distinct)), packed.tokens)
    if packed.tokens and int(places.max()) >= len(distinct):
        raise ValueError("a token is not in the vocabulary")
    ids: NDArray[np.int32] = distinct[places]
    if packed.text is None or packed.starts is None:
        text, starts = _follow(words, places)
        return text, ids, starts
    steps = _spread(packed.starts, "<i4", packed.tokens)
    text = zlib.decompress(packed.text).decode("utf-8", "surrogatepass")
    return text, ids, np.cumsum(steps, dtype=np.int64).astype(np.int32)


def _distinct(
    ids: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """The distinct ids (u,), each token's place among them (n,), where each is first seen (u,)."""
    if not len(ids):
        return ids, np.zeros(0, np.int32), np.zeros(0, np.int64)
    # As large as the vocabulary, and much quicker than sorting as many as the document.
    first = np.full(int(ids.max()) + 1, -1, np.int64)
    first[ids[::-1]] = np.arange(len(ids) - 1, -1, -1)
    distinct = np.flatnonzero(first >= 0)
    place = np.zeros(len(first), np.int32)
    place[distinct] = np.arange(len(distinct))
    return distinct.astype(np.int32), place[ids], first[distinct]


def _exceptions(
    text: str, bounds: NDArray[np.int32], places: NDArray[np.int32], stretches: list[str]
) -> list[tuple[int, str]] | None:
    """Tokens that stand for another stretch than theirs, and which; None: text must be kept."""
    if len(places) and (np.diff(bounds) < 0).any():
        return None  # a tokenizer that turns pieces of the text around
    lengths = np.asarray([len(stretch) for stretch in stretches], np.int64)
    found: list[tuple[int, str]] = []
    for begin, chosen in _chosen(places, stretches):
        end = begin + len(chosen)
        # Both are needed: other borders can make up the same text.
        same = (np.diff(bounds[begin : end + 1]) == lengths[places[begin:end]]).all()
        if same and "".join(chosen) == text[bounds[begin] : bounds[end]]:
            continue
        own = bounds[begin : end + 1].tolist()
        for at, stretch in enumerate(chosen):
            if (here := text[own[at] : own[at + 1]]) != stretch:
                found.append((begin + at, here))
        if len(found) > _MOST_EXCEPTIONS * len(places):
            return None
    return found


def _follow(words: dict[str, Any], places: NDArray[Any]) -> tuple[str, NDArray[np.int32]]:
    """Text and starts of a document whose ``words`` tell them."""
    exceptions = dict(words["exceptions"])
    lengths = np.asarray([len(stretch) for stretch in words["stretches"]], np.int64)[places]
    lengths[list(exceptions)] = [len(stretch) for stretch in exceptions.values()]
    pieces = [words["head"]]
    waiting = iter(exceptions.items())
    at, other = next(waiting, (len(places), ""))
    for begin, chosen in _chosen(places, words["stretches"]):
        while at < begin + len(chosen):
            chosen[at - begin] = other
            at, other = next(waiting, (len(places), ""))
        pieces.append("".join(chosen))
    starts = len(words["head"]) + np.cumsum(lengths) - lengths
    return "".join(pieces), starts.astype(np.int32)


def _chosen(places: NDArray[Any], stretches: list[str]) -> Iterator[tuple[int, list[str]]]:
    """The stretches of the tokens, some at a time, with the first one's position."""
    for begin in range(0, len(places), _STEP):
        yield begin, [stretches[place] for place in places[begin : begin + _STEP].tolist()]


def _kind_of(distinct: int) -> str:
    return "<u2" if distinct <= 1 << 16 else "<u4"


def _compressed(data: bytes | NDArray[Any]) -> bytes:
    # Level 9 takes twice as long and gains nothing on token ids.
    return zlib.compress(data if isinstance(data, bytes) else data.tobytes(), 6)


def _spread(data: bytes, kind: str, count: int) -> NDArray[Any]:
    """``count`` numbers of a compressed array; ``ValueError`` where they are more or fewer."""
    numbers = np.frombuffer(zlib.decompress(data), kind)
    if len(numbers) != count:
        raise ValueError(f"{len(numbers)} numbers where {count} belong")
    return numbers


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
    with transaction(database):
        if stale:  # ids of another tokenizer
            database.execute("DELETE FROM parts")
        database.executemany("INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        database.executemany(
            "INSERT INTO turns VALUES (?, ?)",
            [(key, zlib.compress(turn.record)) for key, turn in turns.items()],
        )
        _put_branches(database, states)
        _put_meta(database, branches[branch], branch, watched, model)
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


def _put_meta(
    database: sqlite3.Connection,
    present: State,
    branch: str,
    watched: Iterable[str],
    model: ModelTag,
) -> None:
    """What the file says of the session as a whole."""
    meta = {
        "model": asdict(model),
        "saved": datetime.now(timezone.utc).isoformat(),
        "branch": branch,
        "watched": sorted(watched),
        "turns": len(present.history.turns),
        "documents": len(present.documents),
        "tokens": present.num_tokens,
    }
    created = dumps(meta["saved"])
    database.execute("INSERT OR IGNORE INTO meta VALUES ('created', ?)", (created,))
    rows = [(key, dumps(value)) for key, value in meta.items()]
    database.executemany("REPLACE INTO meta VALUES (?, ?)", rows)


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
