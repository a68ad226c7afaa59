"""All of a conversation that can be undone, forked and saved, as one immutable value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nazx_cli.session.history import History
from nazx_cli.session.settings import SessionSettings

if TYPE_CHECKING:
    from nazx_cli.reading.part import Part


@dataclass(frozen=True)
class State:
    """Documents in their order, the conversation, and what the person chose.

    Two states share the parts that they have in common: an undo step or a fork costs a few
    references, however long the documents are.
    """

    parts: tuple[Part, ...] = ()
    history: History = field(default_factory=History)
    settings: SessionSettings = field(default_factory=SessionSettings)
