"""A conversation as immutable values: all that can be undone, forked and saved, and the steps and
branches in which it is."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

from nazx_cli.documents.content import dumps, key_of
from nazx_cli.errors import UsageError
from nazx_cli.names import MAIN_BRANCH
from nazx_cli.session.settings import SessionSettings

if TYPE_CHECKING:
    from nazx_cli.reading.passages import Passage
    from nazx_cli.reading.tokenized import TokenizedDocument

Role = Literal["system", "user", "assistant", "source"]
_MOST_STEPS = 200
_LONGEST_NAME = 60


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
    """A question and its answer; ``interrupted`` where the answer did not reach its end,
    ``confidence`` as of ``events.Answer``."""

    question: str
    message: Message
    sources: tuple[Passage, ...] = ()
    answer: str = ""
    interrupted: bool = True
    confidence: float | None = None

    @property
    def record(self) -> bytes:
        """All of the turn as JSON; one without a confidence as before there was any, so that it
        keeps its name."""
        fields = asdict(self)
        if self.confidence is None:
            del fields["confidence"]
        return dumps(fields)

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

    def carried(self) -> list[tuple[Passage, ...]]:
        """The passages of the turns whose passages the next prompt still carries."""
        kept = self.turns[max(self.left_out, self.without_passages) :]
        return [turn.sources for turn in kept if turn.message.context]

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


class Step(NamedTuple):
    """A state, and what was done to come to it (``dropped book.txt``)."""

    state: State
    what: str = ""


@dataclass(frozen=True)
class Timeline:
    """Steps, oldest first; ``at`` is the present one's index, and those after it were undone.

    Immutable, as states are: a fork is the same timeline under another name.
    """

    steps: tuple[Step, ...]
    at: int = 0

    @property
    def present(self) -> State:
        """The state that edits start from."""
        return self.steps[self.at].state

    @property
    def answered(self) -> State:
        """The oldest state known that has the last turn of the present one: its documents and
        settings gave that answer."""
        last = self.present.history.turns[-1]
        states = (step.state for step in self.steps[: self.at + 1])
        return next(each for each in states if any(turn is last for turn in each.history.turns))

    def edited(self, state: State, what: str) -> Timeline:
        """After an edit; what had been undone can then not be redone any more."""
        steps = (*self.steps[: self.at + 1], Step(state, what))[-_MOST_STEPS - 1 :]
        return Timeline(steps, len(steps) - 1)

    def undone(self) -> Timeline:
        """One step back; ``UsageError`` where there is none."""
        if not self.at:
            raise UsageError("there is nothing to undo", "ask something or change the documents")
        return Timeline(self.steps, self.at - 1)

    def redone(self) -> Timeline:
        """One step forward; ``UsageError`` where there is none."""
        if self.at + 1 == len(self.steps):
            raise UsageError("there is nothing to redo", "use /undo first")
        return Timeline(self.steps, self.at + 1)


class Snapshot(NamedTuple):
    """All of a session that is saved: the state of each branch, the present branch's name, and
    the files that are watched. What can be undone is not."""

    branches: Mapping[str, State]
    branch: str
    watched: frozenset[str]


@dataclass(frozen=True)
class Branches:
    """Timelines by name, in the order they were made; ``current`` is the one that edits go to."""

    timelines: Mapping[str, Timeline]
    current: str = MAIN_BRANCH

    @classmethod
    def of(cls, states: Mapping[str, State], current: str = MAIN_BRANCH) -> Branches:
        """Branches without anything to undo."""
        return cls({name: Timeline((Step(state),)) for name, state in states.items()}, current)

    @property
    def timeline(self) -> Timeline:
        """The current branch's."""
        return self.timelines[self.current]

    def with_timeline(self, timeline: Timeline) -> Branches:
        """With another one on the current branch."""
        return Branches({**self.timelines, self.current: timeline}, self.current)

    def edited(self, state: State, what: str) -> Branches:
        """With one more step on the current branch, which leads to ``state``."""
        return self.with_timeline(self.timeline.edited(state, what))

    def forked(self, name: str) -> Branches:
        """With a copy of the current branch, undo included, as the current one.

        ``UsageError`` for a name that is taken or unfit.
        """
        if not name or name != name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
            raise UsageError(
                f"{name!r} cannot name a branch",
                f"use up to {_LONGEST_NAME} letters and digits, as in: /fork idea",
            )
        if name in self.timelines:
            raise UsageError(f"there is a branch {name} already", f"use /switch {name}")
        return Branches({**self.timelines, name: self.timeline}, name)

    def switched(self, name: str) -> Branches:
        """With the branch called ``name`` as the current one; ``UsageError``: there is none."""
        if name not in self.timelines:
            raise UsageError(
                f"there is no branch {name!r}", f"choose from {', '.join(self.timelines)}"
            )
        return Branches(self.timelines, name)

    def presents(self) -> dict[str, State]:
        """The state of each branch."""
        return {name: timeline.present for name, timeline in self.timelines.items()}

    def states(self) -> Iterator[State]:
        """Every state of every branch."""
        for timeline in self.timelines.values():
            yield from (step.state for step in timeline.steps)

    def mapped(self, change: Callable[[State], State]) -> Branches:
        """With ``change`` made to every state; what was one state stays one."""
        states = {id(state): state for state in self.states()}
        changed = {number: change(state) for number, state in states.items()}
        timelines = {
            name: replace(
                timeline,
                steps=tuple(Step(changed[id(state)], what) for state, what in timeline.steps),
            )
            for name, timeline in self.timelines.items()
        }
        return Branches(timelines, self.current)
