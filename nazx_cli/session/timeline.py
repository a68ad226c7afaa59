"""What can be undone and redone, and named lines of a conversation, as immutable values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from nazx_cli.errors import UsageError
from nazx_cli.names import MAIN_BRANCH
from nazx_cli.session.state import State

_MOST_STEPS = 200
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Step:
    """A state, and what was done between it and the present one (``dropped book.txt``)."""

    state: State
    what: str


@dataclass(frozen=True)
class Timeline:
    """The present state with the steps behind and ahead of it, the nearest last.

    Immutable, as states are: a fork is the same timeline under another name.
    """

    present: State
    past: tuple[Step, ...] = ()
    future: tuple[Step, ...] = ()

    def edited(self, state: State, what: str) -> Timeline:
        """After an edit; what had been undone can then not be redone any more."""
        past = (*self.past, Step(self.present, what))
        return Timeline(state, past[-_MOST_STEPS:])

    def undone(self) -> Timeline:
        """One step back; ``UsageError`` where there is none."""
        if not self.past:
            raise UsageError("there is nothing to undo", "ask something or change the documents")
        step = self.past[-1]
        future = (*self.future, Step(self.present, step.what))
        return Timeline(step.state, self.past[:-1], future)

    def redone(self) -> Timeline:
        """One step forward; ``UsageError`` where there is none."""
        if not self.future:
            raise UsageError("there is nothing to redo", "use /undo first")
        step = self.future[-1]
        past = (*self.past, Step(self.present, step.what))
        return Timeline(step.state, past, self.future[:-1])

    def mapped(self, change: Callable[[State], State]) -> Timeline:
        """With ``change`` made to every state."""
        return Timeline(
            change(self.present),
            tuple(replace(step, state=change(step.state)) for step in self.past),
            tuple(replace(step, state=change(step.state)) for step in self.future),
        )

    def states(self) -> tuple[State, ...]:
        """Every state, the present one first."""
        return (self.present, *(step.state for step in (*self.past, *self.future)))


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
        return cls({name: Timeline(state) for name, state in states.items()}, current)

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
            yield from timeline.states()

    def mapped(self, change: Callable[[State], State]) -> Branches:
        """With ``change`` made to every state; what was one state stays one."""
        states = {id(state): state for state in self.states()}
        changed = {number: change(state) for number, state in states.items()}
        return Branches(
            {
                name: timeline.mapped(lambda state: changed[id(state)])
                for name, timeline in self.timelines.items()
            },
            self.current,
        )
