"""All of a conversation that can be undone, forked and saved, as immutable values."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from nazx_cli.reading.content import dumps, key_of
from nazx_cli.session.settings import SessionSettings

if TYPE_CHECKING:
    from nazx_cli.reading.passages import Passage
    from nazx_cli.reading.tokenized import TokenizedDocument

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One message; ``context`` is document text that stands before the ``content``."""

    role: Role
    content: str
    context: str = ""

    @property
    def text(self) -> str:
        """Context and content as a chat template gets them."""
        return f"{self.context}\n\n{self.content}" if self.context else self.content


@dataclass(frozen=True)
class Turn:
    """A question and its answer; ``interrupted`` where the answer did not reach its end."""

    question: str
    message: Message
    sources: tuple[Passage, ...] = ()
    answer: str = ""
    interrupted: bool = True

    @property
    def record(self) -> bytes:
        """All of the turn as JSON."""
        return dumps(asdict(self))

    @cached_property
    def content_key(self) -> str:
        """Names the turn by all of it, so that what is saved can be held to it."""
        return key_of(self.record)


@dataclass(frozen=True)
class History:
    """Turns, oldest first; every change is a new history, so that old ones can be kept.

    A prompt gives up old turns in two steps: first their passages (the next question draws its
    own), then the turns themselves. What was given up stays so, for a prompt whose beginning
    keeps changing has to be computed anew each time.
    """

    turns: tuple[Turn, ...] = ()
    without_passages: int = 0
    left_out: int = 0

    def messages(self) -> list[Message]:
        """The turns that the next prompt carries."""
        return self._reduced(0)

    def with_turn(self, turn: Turn) -> History:
        """With one more turn."""
        return replace(self, turns=(*self.turns, turn))

    def without_last(self) -> History:
        """Without the last turn."""
        turns = self.turns[:-1]
        return History(
            turns, min(self.without_passages, len(turns)), min(self.left_out, len(turns))
        )

    def without_quotes(self, names: Collection[str]) -> History:
        """With the passages given up of every turn up to the last that quotes a document of
        ``names``: what is taken out of a session is not to go on in its prompts."""
        quoting = (
            number
            for number, turn in enumerate(self.turns, 1)
            if any(passage.document in names for passage in turn.sources)
        )
        return replace(self, without_passages=max(self.without_passages, *quoting, 0))

    def fitted(self, size: Callable[[list[Message]], int], room: int) -> History:
        """Give up as little as makes ``size(messages)`` at most ``room``.

        Where whole turns must go, half of the room is cleared, so that the next turns find the
        prompt's beginning unchanged.
        """
        count = len(self.turns)
        level = self._level(size, room)
        if level > count:
            empty = size([])
            level = max(level, self._level(size, empty + max(0, room - empty) // 2))
        return replace(
            self,
            without_passages=max(self.without_passages, min(level, count)),
            left_out=max(self.left_out, level - count),
        )

    def _level(self, size: Callable[[list[Message]], int], room: int) -> int:
        """The smallest reduction that fits: up to T of passages, up to 2T of turns."""
        levels = range(2 * len(self.turns))
        return bisect_left(levels, True, key=lambda at: size(self._reduced(at)) <= room)

    def _reduced(self, level: int) -> list[Message]:
        count = len(self.turns)
        bare = max(self.without_passages, min(level, count))
        messages: list[Message] = []
        for at in range(max(self.left_out, level - count), count):
            turn = self.turns[at]
            messages.append(Message("user", turn.question) if at < bare else turn.message)
            messages.append(Message("assistant", turn.answer))
        return messages


@dataclass(frozen=True)
class State:
    """Documents in their order, the conversation, and what the person chose.

    Two states share the documents that they have in common: an undo step or a fork costs a few
    references, however long the documents are.
    """

    documents: tuple[TokenizedDocument, ...] = ()
    history: History = field(default_factory=History)
    settings: SessionSettings = field(default_factory=SessionSettings)

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents together."""
        return sum(map(len, self.documents))
