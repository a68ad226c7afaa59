"""Workspaces on the real engine, with documents that come from no file."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from cli_helpers import tiny_checkpoint
from models import new_folder, relative_error

from nazx_cli import load_model
from nazx_cli.documents.document import Document
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.session.events import Answer, Event
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings

SHORT = SessionSettings(max_tokens=3)


@cache
def folder(kind: str) -> Path:
    return tiny_checkpoint(new_folder() / kind, kind=kind, template=None)


def model(kind: str = "inattention", layout: str = "auto") -> LanguageModel:
    return load_model(folder(kind), layout=layout)


def workspace(
    *texts: str,
    kind: str = "inattention",
    layout: str = "auto",
    settings: SessionSettings = SHORT,
) -> Session:
    lm = model(kind, layout)
    work = Session(lm, settings=settings)
    add(work, *texts)
    return work


def add(work: Session, *texts: str) -> None:
    """Put documents in as ``read`` does, without files."""
    for text in texts:
        name = f"{text.split()[0].strip('.')}.txt"
        part = TokenizedDocument.build(Document(name, text, "text"), work.lm.tokenizer)
        work.set_documents((*work.documents, part), f"read {name}")


def answer(events: Iterable[Event]) -> str:
    *_, last = events
    assert isinstance(last, Answer)
    return last.text


def names(work: Session) -> list[str]:
    return [part.name for part in work.documents]


def check_context(work: Session) -> None:
    """The context holds the documents and then live ids, and gives the logits of a new one."""
    lm, context = work.lm, work.context
    assert context is not None
    resident = np.concatenate([np.zeros(0, np.int32), *(part.ids for part in work.documents)])
    live = context.live_ids
    assert context.ids.tolist() == [*resident.tolist(), *live]
    fresh = lm.new_context()
    fresh.append(resident.tolist(), resident=True)
    fresh.append(live)
    assert relative_error(lm.next_logits(context), lm.next_logits(fresh)) < 1e-4
