"""The saved sessions over HTTP: which there are, what was said in one, a document of one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nazx_cli.reading.attribution import quoted
from nazx_cli.reading.passages import distinct
from nazx_cli.serving.desk import Source
from nazx_cli.serving.errors import naming_a_session, no_document
from nazx_cli.serving.replies import citation
from nazx_cli.session.calibration import doubt, is_unsure, rounded

if TYPE_CHECKING:
    from nazx_cli.documents.document import Document
    from nazx_cli.serving.shelf import Shelf
    from nazx_cli.session.saving.conversation import Conversation
    from nazx_cli.session.saving.session_file import SessionInfo
    from nazx_cli.session.saving.store import Store
    from nazx_cli.session.state import Turn


def listed(store: Store) -> list[dict[str, Any]]:
    """All sessions, last saved first."""
    return [_info(info) for info in store.infos()]


def told(store: Store, name: str, shelf: Shelf) -> dict[str, Any]:
    """What was said in the session ``name``; 404 where there is none. Sources name documents of
    the ``shelf`` that no session keeps."""
    with naming_a_session():
        said = store.read(name)
    documents = enumerate(said.documents, 1)
    files = {held.document.name: held.id for held in shelf if held.is_indexed}
    return {
        "name": name,
        "model": said.model,
        "documents": [
            {"number": number, "filename": each, "tokens": tokens}
            for number, (each, tokens) in documents
        ],
        "turns": [_turn(turn, said, files) for turn in said.turns],
    }


def document(store: Store, name: str, number: str) -> Document:
    """The document of that number in the session ``name``; 404 where there is none."""
    with naming_a_session():
        found = store.document(name, int(number)) if number.isdecimal() else None
    if found is None:
        raise no_document(name)
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


def _turn(turn: Turn, said: Conversation, files: Mapping[str, str]) -> dict[str, Any]:
    numbers = {name: number for number, (name, _) in reversed([*enumerate(said.documents, 1)])}
    others = (passage for _, passage in distinct(turn.sources))
    return {
        "question": turn.question,
        "answer": turn.answer.strip(),
        "interrupted": turn.interrupted,
        "confidence": rounded(turn.confidence),
        "unsure": is_unsure(turn.confidence),
        "doubt": doubt(turn.confidence),
        "sources": [
            citation(
                Source(
                    passage,
                    numbers.get(passage.document),
                    None if passage.document in numbers else files.get(passage.document),
                    quoted(passage, turn.answer, turn.question),
                )
            )
            for passage in dict.fromkeys([*turn.sources[:1], *others])  # the answer's own first
        ],
    }
