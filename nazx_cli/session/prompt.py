"""How passages and a question become a message.

The wording is short because the default model is small. Five wordings, and passages in order of
rank, were tried on it with ten questions about tests/data/alice.txt: each got 2 or 3 right, so
nothing here is known to be better than the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePath
from typing import TYPE_CHECKING

from nazx_cli.reading.mapreduce import NOTHING_FOUND
from nazx_cli.session.messages import Message

if TYPE_CHECKING:
    from nazx_cli.reading.passages import Passage


@dataclass(frozen=True)
class Prompt:
    """A question ready to be answered: the message to send, the read mode it came from, and
    the passages that it holds."""

    question: str
    message: Message
    mode: str = "none"
    passages: tuple[Passage, ...] = ()


def user_message(
    question: str,
    passages: Sequence[Passage] = (),
    *,
    overview: bool = False,
    chat: bool = True,
    recollected: bool = False,
) -> Message:
    """The user's turn; ``chat`` is off for a model without a chat template, ``recollected`` on
    where all passages come from earlier in the conversation."""
    if not passages:
        return Message("user", question)
    if recollected:
        entries = [passage_entry(number, passage) for number, passage in enumerate(passages, 1)]
        return Message("user", question, "\n\n".join(["Earlier in this conversation:", *entries]))
    if not chat:
        return Message("user", question, passage_block(passages))
    if overview:
        lead = "These passages are drawn from the whole text, in order. Answer about the whole text"
    else:
        lead = "Using only these passages, answer"
    return Message("user", f"{lead}: {question}", passage_block(passages))


def part_message(
    question: str, passages: Sequence[Passage], *, overview: bool, chat: bool
) -> Message:
    """The question, asked of one block of a document that is read block by block."""
    if not chat:
        return Message("user", question, passage_block(passages))
    if overview:
        content = f"This is one part of a longer text. In two sentences, for this part: {question}"
    else:
        content = (
            f"Using only these passages, answer in one or two sentences: {question}\n"
            f'If they do not tell, say "{NOTHING_FOUND}"'
        )
    return Message("user", content, passage_block(passages))


def notes_message(question: str, notes: Sequence[str], *, chat: bool) -> Message:
    """The question, asked of the answers that the blocks gave."""
    block = "\n\n".join(
        ["Notes from the parts of the text, in order:"]
        + [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
    )
    lead = "Using only these notes, answer: " if chat else ""
    return Message("user", f"{lead}{question}", block)


def passage_block(passages: Sequence[Passage]) -> str:
    """The passages, numbered through, under the name of their document."""
    parts: list[str] = []
    number = 0
    for name, group in groupby(passages, key=lambda passage: passage.document):
        parts.append(document_line(name))
        for passage in group:
            number += 1
            parts.append(passage_entry(number, passage))
    return "\n\n".join(parts)


def document_line(name: str) -> str:
    """What stands above a document's passages; folders tell the model nothing."""
    return f"Passages from {PurePath(name).name}:"


def passage_entry(number: int, passage: Passage) -> str:
    """One numbered passage."""
    return f"[{number}] {passage.text.strip()}"
