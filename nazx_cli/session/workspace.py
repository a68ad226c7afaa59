"""What a chat can do with its documents and its conversation; knows no terminal."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.errors import UsageError
from nazx_cli.reading.plan import check_mode
from nazx_cli.session.branches import Branches
from nazx_cli.session.events import Event, Notice
from nazx_cli.session.files import (
    Progress,
    ReadResult,
    Watcher,
    origin_of,
    read_again,
    read_new,
    rebuilt,
)
from nazx_cli.session.history import History
from nazx_cli.session.parameters import parameters, with_parameter
from nazx_cli.session.state import State
from nazx_cli.session.timeline import Timeline
from nazx_cli.session.usage import Meter, Usage

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.reading.part import Part
    from nazx_cli.session.session import Session


class Workspace:
    """A session whose documents, turns and settings can be edited, undone and forked.

    Documents are numbered from 1. Every edit is one step that ``undo`` takes back; an edit that
    raises has changed nothing. Numbers out of range, and all else that makes no sense, are a
    ``UsageError``; ``ContextOverflowError`` where documents would outgrow ``ctx``.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._branches = Branches(session.state)
        self._watched: set[str] = set()
        self._watcher = Watcher()
        self._meter = Meter(session)

    @property
    def documents(self) -> tuple[Part, ...]:
        """The documents in their order."""
        return self.session.state.parts

    def read(self, specs: Sequence[str], on_progress: Progress | None = None) -> ReadResult:
        """Add files, folders and globs at the end.

        ``on_progress`` is told bytes read and in all, then characters tokenized and in all.
        ``DocumentError`` for what cannot be read.
        """
        found = read_new(specs, self.documents, self.session.lm.tokenizer, on_progress)
        if found.added:
            names = found.added[0].name if len(found.added) == 1 else f"{len(found.added)} files"
            self.set_parts((*self.documents, *found.added), f"read {names}")
        return found

    def drop(self, number: int) -> Part:
        """Take a document out; returns it."""
        part = self._at(number)
        self.set_parts(_without(self.documents, number), f"dropped {part.name}")
        return part

    def swap(self, number: int, spec: str, on_progress: Progress | None = None) -> Part:
        """Put the one document that ``spec`` names in another's place; returns the new one."""
        old = self._at(number)
        others = _without(self.documents, number)
        found = read_new([spec], others, self.session.lm.tokenizer, on_progress, like=old)
        if found.known:
            raise UsageError(f"{found.known[0]} is in the session already", "use /move to move it")
        if len(found.added) != 1:
            raise UsageError(f"{spec} names {len(found.added)} documents", "name a single file")
        parts = (*self.documents[: number - 1], found.added[0], *self.documents[number:])
        self.set_parts(parts, f"swapped {old.name} for {found.added[0].name}")
        return found.added[0]

    def move(self, number: int, to: int) -> Part:
        """Give a document the number ``to``; returns it."""
        part = self._at(number)
        self._at(to)
        parts = list(_without(self.documents, number))
        parts.insert(to - 1, part)
        if number != to:
            self.set_parts(tuple(parts), f"moved {part.name} from {number} to {to}")
        return part

    def reload(self, number: int, on_progress: Progress | None = None) -> bool:
        """Read a document's file again; False where it has not changed."""
        old = self._at(number)
        new = read_again(old, self.session.lm.tokenizer, on_progress)
        if new is old:
            return False
        parts = (*self.documents[: number - 1], new, *self.documents[number:])
        self.set_parts(parts, f"reloaded {old.name}")
        return True

    def watch(self, number: int, on: bool = True) -> None:
        """Have ``changed`` look at a document's file, or no longer."""
        path = origin_of(self._at(number)).path
        (self._watched.add if on else self._watched.discard)(path)

    @property
    def watched(self) -> frozenset[str]:
        """Paths of the watched files."""
        return frozenset(self._watched)

    def is_watched(self, number: int) -> bool:
        """Whether a document's file is watched."""
        origin = self._at(number).document.origin
        return origin is not None and origin.path in self._watched

    def changed(self) -> tuple[int, ...]:
        """Numbers of the watched documents whose files hold something else now."""
        return tuple(
            number
            for number, part in enumerate(self.documents, 1)
            if (origin := part.document.origin) is not None
            and origin.path in self._watched
            and self._watcher.changed(origin)
        )

    def missing(self) -> tuple[int, ...]:
        """Numbers of the watched documents whose files are gone."""
        return tuple(
            number
            for number, part in enumerate(self.documents, 1)
            if self.is_watched(number) and not Path(origin_of(part).path).exists()
        )

    def ask(self, question: str) -> Generator[Event, None, None]:
        """As ``Session.ask``; a turn that comes of it is one step."""
        yield from self._turn(question, self.session.state, "the last turn")

    def regen(self) -> Generator[Event, None, None]:
        """Answer the last question again; what ends before its first word changes nothing."""
        last = self._last_turn()
        sampling = self.session.settings.sampling
        if sampling.temperature == 0 or sampling.seed is not None:
            why = "at temperature 0" if sampling.temperature == 0 else "with a seed"
            yield Notice(
                f"{why} the answer will be the same; /set parameter temperature changes it"
            )
        history = self.session.state.history.without_last()
        without = replace(self.session.state, history=history)
        yield from self._turn(last, without, "the new answer")

    def take_back(self) -> str:
        """Remove the last turn and return its question, to be asked in other words."""
        question = self._last_turn()
        history = self.session.state.history.without_last()
        self._edit(replace(self.session.state, history=history), "took back the last turn")
        return question

    def clear(self) -> None:
        """Forget the conversation; the documents stay."""
        if self.session.turns:
            state = replace(self.session.state, history=History())
            self._edit(state, "cleared the conversation")

    def _turn(self, question: str, start: State, what: str) -> Generator[Event, None, None]:
        """Ask as from the state ``start``; a turn that came of it is one step."""
        before = self._present().present
        if start is not before:
            self.session.state = start
        try:
            yield from self.session.ask(question)
        finally:
            after = self.session.state
            if after is start and start is not before:
                self.session.state = before
            elif after is not start:
                self._branches.edited(after, what)

    def _last_turn(self) -> str:
        if not self.session.turns:
            raise UsageError("there is no turn yet", "ask something first")
        return self.session.turns[-1].question

    def set_parameter(self, key: str, value: str) -> str:
        """Set a parameter by name; returns a sentence that says what it is now."""
        state = self.session.state
        settings, name = with_parameter(state.settings, key, value)
        check_mode(settings.read, self.session.lm.reads_resident)
        shown = parameters(settings)[name]
        history = state.history
        if settings.ctx != state.settings.ctx:
            history = replace(history, left_out=0)  # what had to go may fit now
        if settings != state.settings:
            self._edit(State(state.parts, history, settings), f"set {name} to {shown}")
        return f"{name} is {shown}"

    def set_system(self, text: str | None) -> None:
        """Set the system message, or take it away."""
        settings = replace(self.session.settings, system=text.strip() or None if text else None)
        if settings != self.session.settings:
            what = "set the system message" if settings.system else "removed the system message"
            self._edit(replace(self.session.state, settings=settings), what)

    def parameters(self) -> Mapping[str, str]:
        """Names and values of the parameters."""
        return parameters(self.session.settings)

    def use_model(self, lm: LanguageModel, on_progress: Progress | None = None) -> None:
        """Go on with another model; documents are tokenized anew where its tokenizer differs.

        Conversation, branches and undo stay. Not a step that can be undone.
        """
        known: dict[Part, Part] = {}
        self._present()
        if not _same_tokenizer(self.session.lm, lm):
            states = self._branches.states()
            parts = (part for state in states for part in state.parts)
            known = rebuilt(parts, lm.tokenizer, on_progress)

        changed: dict[int, State] = {}  # by id: what was one state stays one

        def change(state: State) -> State:
            if id(state) not in changed:
                parts = tuple(known.get(part, part) for part in state.parts)
                history = replace(state.history, left_out=0)  # the window is another
                changed[id(state)] = replace(state, parts=parts, history=history)
            return changed[id(state)]

        self.session.use_model(lm, change(self.session.state))
        self._branches.change(change)

    def undo(self) -> str:
        """Take the last step back; returns what it was (``dropped book.txt``)."""
        timeline = self._present().undone()
        return self._go(timeline, timeline.future[-1].what)

    def redo(self) -> str:
        """Do again what was undone last; returns what it is."""
        timeline = self._present().redone()
        return self._go(timeline, timeline.past[-1].what)

    def fork(self, name: str) -> None:
        """Copy the present state to a new branch and go on there."""
        self._present()
        self._branches.fork(name)

    def switch(self, name: str) -> None:
        """Go on with another branch."""
        self._present()
        self.session.state = self._branches.find(name).present
        self._branches.current = name

    @property
    def branch(self) -> str:
        """The present branch's name; ``main`` at first."""
        return self._branches.current

    @property
    def branches(self) -> Mapping[str, State]:
        """Every branch's state, in the order they were made."""
        return {**self._branches.presents(), self.branch: self.session.state}

    def snapshot(self) -> tuple[Mapping[str, State], str, frozenset[str]]:
        """Branches, the present one's name, and what is watched: all that is saved."""
        return self.branches, self.branch, self.watched

    def restore(
        self, branches: Mapping[str, State], branch: str, watched: frozenset[str] = frozenset()
    ) -> None:
        """Become what ``snapshot`` gave; nothing can be undone then."""
        self.session.state = branches[branch]
        self._branches = Branches.of(branches, branch)
        self._watched = set(watched)

    def usage(self) -> Usage:
        """Tokens and bytes; may be asked from another thread while an answer comes."""
        return self._meter.usage()

    def _at(self, number: int) -> Part:
        count = len(self.documents)
        if 1 <= number <= count:
            return self.documents[number - 1]
        if not count:
            raise UsageError("there are no documents", "use /read to add one")
        choice = "it is number 1" if count == 1 else f"choose 1 to {count}"
        raise UsageError(f"there is no document {number}", choice)

    def set_parts(self, parts: tuple[Part, ...], what: str) -> None:
        """Make ``parts`` the documents, as one step; ``what`` says what was done."""
        state = self.session.state
        gone = {part.name for part in state.parts if part not in parts}
        self._edit(State(parts, state.history.without_quotes(gone), state.settings), what)

    def _present(self) -> Timeline:
        """The current branch, with a step for what the session did by itself."""
        self._branches.edited(self.session.state, "the last turn")
        return self._branches.timeline

    def _edit(self, state: State, what: str) -> None:
        self._present()
        self.session.state = state
        self._branches.edited(state, what)

    def _go(self, timeline: Timeline, what: str) -> str:
        self.session.state = timeline.present
        self._branches.timeline = timeline
        return what


def _without(parts: Sequence[Part], number: int) -> tuple[Part, ...]:
    return (*parts[: number - 1], *parts[number:])


def _same_tokenizer(one: LanguageModel, other: LanguageModel) -> bool:
    """Whether both give the same ids, told by their files."""
    if one.tokenizer is other.tokenizer:
        return True
    mine, its = ((lm.folder / "tokenizer.json").read_bytes() for lm in (one, other))
    return mine == its
