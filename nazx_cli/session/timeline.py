"""What can be undone and redone: states before and after the present one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from nazx_cli.errors import UsageError
from nazx_cli.session.state import State

_MOST_STEPS = 200


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
