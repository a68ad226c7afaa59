"""The rows of a session file: parts, turns and states as bytes and JSON, and back."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from hashlib import blake2b
from typing import Any, TypeVar

from nazx_cli.documents.document import Document, Origin, Place
from nazx_cli.engine.sampling import Sampling
from nazx_cli.reading.part import Part
from nazx_cli.reading.passages import Passage
from nazx_cli.session.history import History, Turn
from nazx_cli.session.jsonbytes import dumps, loads
from nazx_cli.session.messages import Message
from nazx_cli.session.packing import Packed, unpack
from nazx_cli.session.settings import SessionSettings
from nazx_cli.session.state import State

_T = TypeVar("_T")


def document_json(part: Part) -> bytes:
    """All of a part's document but its text."""
    document = part.document
    return dumps(
        {
            "name": document.name,
            "format": document.format,
            "places": [[place.start, place.label] for place in document.places],
            "origin": asdict(document.origin) if document.origin else None,
        }
    )


def part_key(part: Part) -> str:
    """Names a part by all that is stored of it, so that what comes back can be held to it."""
    return _key(part.key.encode() + document_json(part))


def part_from(key: str, document: bytes, packed: Packed) -> Part:
    """The part that was stored as ``key``; ``ValueError`` where it is another now."""
    data = loads(document)
    text, ids, starts = unpack(packed)
    places = tuple(Place(start, label) for start, label in data["places"])
    origin = _made(Origin, data["origin"]) if data["origin"] else None
    part = Part(Document(data["name"], text, data["format"], places, origin), ids, starts)
    if part_key(part) != key:
        raise ValueError(f"the text of {data['name']} is not what was saved")
    return part


def turn_record(turn: Turn) -> bytes:
    """All of a turn as JSON."""
    return dumps(asdict(turn))


def turn_key(turn: Turn) -> str:
    """Names a turn by all of it."""
    return _key(turn_record(turn))


def turn_from(key: str, row: bytes) -> Turn:
    """The turn that was stored as ``key``; ``ValueError`` where it is another now."""
    record = zlib.decompress(row)
    if _key(record) != key:
        raise ValueError("a turn is not what was saved")
    data = loads(record)
    sources = tuple(_made(Passage, passage) for passage in data["sources"])
    return _made(Turn, data | {"message": _made(Message, data["message"]), "sources": sources})


def state_json(state: State, part_keys: list[str], turn_keys: list[str]) -> bytes:
    """A state that names its parts and turns by their keys."""
    history = asdict(replace(state.history, turns=()))
    del history["turns"]
    return dumps(
        {
            "parts": part_keys,
            "turns": turn_keys,
            "history": history,
            "settings": asdict(state.settings),
        }
    )


def state_from(record: bytes, parts: Mapping[str, Part], turns: Mapping[str, Turn]) -> State:
    """The state of ``state_json``, out of the parts and turns that it names."""
    data = loads(record)
    settings = data["settings"]
    return State(
        parts=tuple(parts[key] for key in data["parts"]),
        history=_made(
            History, data["history"] | {"turns": tuple(turns[key] for key in data["turns"])}
        ),
        settings=_made(
            SessionSettings, settings | {"sampling": _made(Sampling, settings["sampling"])}
        ),
    )


def _made(kind: type[_T], data: Mapping[str, Any]) -> _T:
    """A dataclass from its fields; one that the record lacks is newer and has its default."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in data.items() if name in names})


def _key(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()
