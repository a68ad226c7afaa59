"""The saved sessions over HTTP: which there are, what was said in one, a document of one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from nazx_cli.errors import UsageError
from nazx_cli.reading.passages import distinct, quoted
from nazx_cli.serving.errors import ApiError
from nazx_cli.serving.replies import citation

if TYPE_CHECKING:
    from nazx_cli.documents.document import Document
    from nazx_cli.session.saving.conversation import Conversation
    from nazx_cli.session.saving.session_file import SessionInfo
    from nazx_cli.session.saving.store import Store
    from nazx_cli.session.state import Turn


def listed(store: Store) -> list[dict[str, Any]]:
    """All sessions, last saved first."""
    return [_info(info) for info in store.infos()]


def told(store: Store, name: str) -> dict[str, Any]:
    """What was said in the session ``name``; 404 where there is none."""
    try:
        said = store.read(name)
    except UsageError as error:
        raise _missing(error) from None
    documents = enumerate(said.documents, 1)
    return {
        "name": name,
        "model": said.model,
        "documents": [
            {"number": number, "filename": each, "tokens": tokens}
            for number, (each, tokens) in documents
        ],
        "turns": [_turn(turn, said) for turn in said.turns],
    }


def document(store: Store, name: str, number: str) -> Document:
    """The document of that number in the session ``name``; 404 where there is none."""
    try:
        found = store.document(name, int(number)) if number.isdecimal() else None
    except UsageError as error:
        raise _missing(error) from None
    if found is None:
        raise ApiError(404, f"session {name} has no such document", "number", "file_not_found")
    return found


def _info(info: SessionInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "model": info.model,
        "turns": info.turns,
        "documents": info.documents,
        "tokens": info.tokens,
        "saved_at": int(info.saved.timestamp()),
        "open": info.open_by not in (None, os.getpid()),
        "damaged": bool(info.problem),
    }


def _turn(turn: Turn, said: Conversation) -> dict[str, Any]:
    numbers = {name: number for number, (name, _) in reversed([*enumerate(said.documents, 1)])}
    return {
        "question": turn.question,
        "answer": turn.answer.strip(),
        "interrupted": turn.interrupted,
        "sources": [
            citation(
                passage,
                quoted(passage, turn.answer, turn.question),
                document=numbers.get(passage.document),
            )
            for _, passage in distinct(turn.sources)
        ],
    }


def _missing(error: UsageError) -> ApiError:
    return ApiError(404, error.message, "name", "session_not_found")
