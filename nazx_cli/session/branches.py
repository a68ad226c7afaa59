"""Named lines of a conversation, each with its own undo."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from nazx_cli.errors import UsageError
from nazx_cli.session.state import State
from nazx_cli.session.timeline import Timeline

MAIN = "main"
_LONGEST_NAME = 60


class Branches:
    """Timelines by name; ``current`` is the one that edits go to."""

    def __init__(self, state: State, name: str = MAIN) -> None:
        self._timelines = {name: Timeline(state)}
        self.current = name

    @classmethod
    def of(cls, states: Mapping[str, State], current: str) -> Branches:
        """Branches without anything to undo."""
        made = cls(states[current], current)
        made._timelines = {name: Timeline(state) for name, state in states.items()}
        return made

    @property
    def timeline(self) -> Timeline:
        """The current branch's."""
        return self._timelines[self.current]

    @timeline.setter
    def timeline(self, timeline: Timeline) -> None:
        self._timelines[self.current] = timeline

    def edited(self, state: State, what: str) -> None:
        """Add a step to the current branch, unless ``state`` is where it stands already."""
        if state is not self.timeline.present:
            self.timeline = self.timeline.edited(state, what)

    def fork(self, name: str) -> None:
        """Copy the current branch, undo included, and make the copy the current one.

        ``UsageError`` for a name that is taken or unfit.
        """
        if not name or name != name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
            raise UsageError(
                f"{name!r} cannot name a branch",
                f"use up to {_LONGEST_NAME} letters and digits, as in: /fork idea",
            )
        if name in self._timelines:
            raise UsageError(f"there is a branch {name} already", f"use /switch {name}")
        self._timelines[name] = self.timeline
        self.current = name

    def find(self, name: str) -> Timeline:
        """The branch called ``name``; ``UsageError`` where there is none."""
        if name not in self._timelines:
            raise UsageError(
                f"there is no branch {name!r}", f"choose from {', '.join(self._timelines)}"
            )
        return self._timelines[name]

    def presents(self) -> dict[str, State]:
        """The state of each branch, in the order they were made."""
        return {name: timeline.present for name, timeline in self._timelines.items()}

    def states(self) -> Iterator[State]:
        """Every state of every branch."""
        for timeline in self._timelines.values():
            yield from timeline.states()

    def change(self, change: Callable[[State], State]) -> None:
        """Make ``change`` to every state."""
        self._timelines = {name: line.mapped(change) for name, line in self._timelines.items()}
