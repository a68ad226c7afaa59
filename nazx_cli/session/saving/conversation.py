"""What was said in a session and about which documents, without the documents themselves."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nazx_cli.documents.content import loads
from nazx_cli.documents.document import Document
from nazx_cli.session.saving.records import GoneError, read_branches, read_document, read_turns
from nazx_cli.session.state import State, Turn


@dataclass(frozen=True)
class Conversation:
    """The turns of one branch, oldest first; ``documents`` are names and sizes in tokens."""

    model: str
    system: str | None
    documents: tuple[tuple[str, int], ...]
    turns: tuple[Turn, ...]

    @classmethod
    def of(cls, state: State, model: str) -> Conversation:
        """The conversation of a state that is at hand."""
        documents = tuple((each.name, len(each)) for each in state.documents)
        return cls(model, state.settings.system, documents, state.history.turns)


def document_in(
    database: sqlite3.Connection, meta: Mapping[str, Any], number: int
) -> Document | None:
    """The document of that number, from 1, in the present branch; None where there is none, or the
    index has it no longer. Errors as ``conversation_of``."""
    keys = read_branches(database, meta)[meta["branch"]]["parts"]
    if not 1 <= number <= len(keys):
        return None
    try:
        return read_document(database, keys[number - 1]).document
    except GoneError:
        return None


def conversation_of(
    database: sqlite3.Connection, meta: Mapping[str, Any], model: str
) -> Conversation:
    """The present branch of the file whose ``meta`` this is.

    ``ValueError``, ``KeyError`` and the like for what is damaged.
    """
    record = read_branches(database, meta)[meta["branch"]]
    sizes = {
        key: (str(loads(header)["name"]), int(tokens))
        for key, header, tokens in database.execute("SELECT key, document, tokens FROM parts")
    }
    turns = read_turns(database, set(record["turns"]))
    system = record["settings"]["system"]
    return Conversation(
        model,
        None if system is None else str(system),
        tuple(sizes[key] for key in record["parts"]),
        tuple(turns[key] for key in record["turns"]),
    )
