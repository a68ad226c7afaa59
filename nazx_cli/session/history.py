"""The turns of a conversation, and which part of them a prompt still carries."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nazx_cli.session.messages import Message

if TYPE_CHECKING:
    from nazx_cli.reading.passages import Passage


@dataclass
class Turn:
    """A question and its answer so far; ``interrupted`` until the answer reached its end."""

    question: str
    message: Message
    sources: tuple[Passage, ...] = ()
    answer: str = ""
    interrupted: bool = True


@dataclass
class History:
    """Turns, oldest first.

    A prompt gives up old turns in two steps: first their passages (the next question draws its
    own), then the turns themselves. What was given up stays so, for a prompt whose beginning
    keeps changing has to be computed anew each time.
    """

    turns: list[Turn] = field(default_factory=list)
    without_passages: int = 0
    left_out: int = 0

    def messages(self) -> list[Message]:
        """The turns that the next prompt carries."""
        return self._reduced(0)

    def fit(self, size: Callable[[list[Message]], int], room: int) -> int:
        """Give up as little as makes ``size(messages)`` at most ``room``.

        Returns how many turns were newly left out. Where any must be, half of the room is
        cleared, so that the next turns find the prompt's beginning unchanged.
        """
        count = len(self.turns)
        level = self._level(size, room)
        if level > count:
            empty = size([])
            level = max(level, self._level(size, empty + max(0, room - empty) // 2))
        before = self.left_out
        self.without_passages = max(self.without_passages, min(level, count))
        self.left_out = max(before, level - count)
        return self.left_out - before

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
