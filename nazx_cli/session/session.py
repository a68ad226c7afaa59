"""The one owner of a conversation: its documents, turns and settings, with undo and forks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.errors import UsageError
from nazx_cli.names import MAIN_BRANCH, OnProgress
from nazx_cli.session.answering import Answerer
from nazx_cli.session.events import Event, Notice, Usage
from nazx_cli.session.files import ReadResult, Watcher, origin_of, read_again, read_new, rebuilt
from nazx_cli.session.prompt import read_mode
from nazx_cli.session.saying import default_sampling
from nazx_cli.session.settings import SessionSettings, parameters, with_parameter
from nazx_cli.session.state import Branches, History, Snapshot, State, Turn

if TYPE_CHECKING:
    from nazx_cli.context.context import Context
    from nazx_cli.documents.document import Origin
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.engine.sampling import Sampling
    from nazx_cli.index.shelf import Index
    from nazx_cli.reading.library import Library
    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.tokenizer import Tokenizer


class Session:
    """A conversation with ``lm`` about the documents of ``library``; knows no terminal. What is
    read later goes into ``index`` where it is much.

    Documents are numbered from 1. Every edit and every turn is one step that ``undo`` takes
    back; an edit that raises has changed nothing. Numbers out of range, a read mode that the
    model cannot do and all else that makes no sense are a ``UsageError``;
    ``ContextOverflowError`` where ``ctx`` is less than documents that the model attends to.
    """

    def __init__(
        self,
        lm: LanguageModel,
        library: Library | None = None,
        settings: SessionSettings | None = None,
        index: Index | None = None,
    ) -> None:
        documents = library.documents if library is not None else ()
        state = State(documents, History(), settings or SessionSettings())
        self._answerer = Answerer(lm, library)
        self._answerer.prepare(state)
        self._branches = Branches.of({MAIN_BRANCH: state})
        self._index = index
        self._watched: set[str] = set()
        self._watcher = Watcher()

    @property
    def lm(self) -> LanguageModel:
        """The model that answers."""
        return self._answerer.lm

    @property
    def state(self) -> State:
        """All that can be undone, forked and saved, as it is now."""
        return self._branches.timeline.present

    @property
    def settings(self) -> SessionSettings:
        """What the person chose."""
        return self.state.settings

    @property
    def documents(self) -> tuple[TokenizedDocument, ...]:
        """The documents in their order."""
        return self.state.documents

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation so far, oldest turn first."""
        return self.state.history.turns

    @property
    def library(self) -> Library | None:
        """The documents as one sequence of tokens; None where there are none."""
        return self._answerer.setup(self.state).library

    @property
    def context(self) -> Context | None:
        """What the model holds now; None before the first answer."""
        return self._answerer.context

    def release(self) -> None:
        """Let go of what the model holds; it comes back with the next answer, whole."""
        self._answerer.release()

    @property
    def answering(self) -> bool:
        """True while an answer comes."""
        return self._answerer.answering

    def conversation_ids(self) -> list[int]:
        """What a prompt holds of the conversation before a question, system message included."""
        return self._answerer.carried(self.state)

    def usage(self) -> Usage:
        """Tokens and bytes; may be asked from another thread while an answer comes."""
        return self._answerer.usage(self.state)

    def ask(self, question: str) -> Generator[Event, None, None]:
        """Answer ``question``; events tell what happens, the last one is the ``Answer``.

        Stopping early (closing the iterator, or KeyboardInterrupt) keeps what was said: it is
        the turn's answer, marked as interrupted. Errors leave the conversation as it was.
        """
        yield from self._turn(question, self.state, "the last turn")

    def regen(self) -> Generator[Event, None, None]:
        """Answer the last question again; what ends before its first word changes nothing."""
        last = self._last_turn()
        sampling = self.settings.sampling.over(self._default_sampling(self.state))
        answered = self._branches.timeline.answered
        changed = (self.documents, self.settings) != (answered.documents, answered.settings)
        if not changed and (sampling.temperature == 0 or sampling.seed is not None):
            why = "at temperature 0" if sampling.temperature == 0 else "with a seed"
            yield Notice(
                f"{why} the same documents and settings give the same answer; "
                "/set parameter temperature changes it"
            )
        without = replace(self.state, history=self.state.history.without_last())
        yield from self._turn(last, without, "the new answer")

    def take_back(self) -> str:
        """Remove the last turn and return its question, to be asked in other words."""
        question = self._last_turn()
        history = self.state.history.without_last()
        self._edit(replace(self.state, history=history), "took back the last turn")
        return question

    def clear(self) -> None:
        """Forget the conversation; the documents stay."""
        if self.turns:
            self._edit(replace(self.state, history=History()), "cleared the conversation")

    def read(self, specs: Sequence[str], on_progress: OnProgress | None = None) -> ReadResult:
        """Add files, folders and globs at the end.

        ``on_progress`` is told bytes read and in all, then characters tokenized and in all.
        ``DocumentError`` for what cannot be read.
        """
        attends = read_mode(self.settings, self.lm) == "resident"
        index = None if attends else self._index
        found = read_new(specs, self.documents, self.lm.tokenizer, on_progress, index=index)
        self.add(found)
        return found

    def add(self, found: ReadResult) -> None:
        """Add what was read, by the model's tokenizer, at the end."""
        if found.added:
            names = found.added[0].name if len(found.added) == 1 else f"{len(found.added)} files"
            self.set_documents((*self.documents, *found.added), f"read {names}")

    def drop(self, *numbers: int) -> tuple[TokenizedDocument, ...]:
        """Take documents out, as one step; returns them."""
        dropped = {number: self._at(number) for number in numbers}
        left = (each for n, each in enumerate(self.documents, 1) if n not in dropped)
        names = [document.name for document in dropped.values()]
        what = names[0] if len(names) == 1 else f"{len(names)} documents"
        self.set_documents(tuple(left), f"dropped {what}")
        return tuple(dropped.values())

    def swap(
        self, number: int, spec: str, on_progress: OnProgress | None = None
    ) -> TokenizedDocument:
        """Put the one document that ``spec`` names in another's place; returns the new one."""
        old = self._at(number)
        others = self._others(number)
        found = read_new([spec], others, self.lm.tokenizer, on_progress, like=old)
        if found.known:
            raise UsageError(f"{found.known[0]} is in the session already", "use /move to move it")
        if len(found.added) != 1:
            raise UsageError(f"{spec} names {len(found.added)} documents", "name a single file")
        (new,) = found.added
        self._replace(number, new, f"swapped {old.name} for {new.name}")
        return new

    def move(self, number: int, to: int) -> TokenizedDocument:
        """Give a document the number ``to``; returns it."""
        document = self._at(number)
        self._at(to)
        documents = list(self._others(number))
        documents.insert(to - 1, document)
        if number != to:
            self.set_documents(tuple(documents), f"moved {document.name} from {number} to {to}")
        return document

    def reload(self, number: int, on_progress: OnProgress | None = None) -> bool:
        """Read a document's file again; False where it has not changed."""
        old = self._at(number)
        new = read_again(old, self.lm.tokenizer, on_progress)
        if new is old:
            return False
        self._replace(number, new, f"reloaded {old.name}")
        return True

    def set_documents(self, documents: tuple[TokenizedDocument, ...], what: str) -> None:
        """Make ``documents`` all there are, as one step; ``what`` says what was done."""
        gone = {document.name for document in self.documents if document not in documents}
        history = self.state.history.without_quotes(gone)
        self._edit(State(documents, history, self.settings), what)

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
        return self._watched_where(self._watcher.changed)

    def missing(self) -> tuple[int, ...]:
        """Numbers of the watched documents whose files are gone."""
        return self._watched_where(lambda origin: not Path(origin.path).exists())

    def _watched_where(self, holds: Callable[[Origin], bool]) -> tuple[int, ...]:
        return tuple(
            number
            for number, document in enumerate(self.documents, 1)
            if self.is_watched(number) and holds(origin_of(document))
        )

    def parameters(self) -> Mapping[str, str]:
        """Names and values of the parameters."""
        return parameters(self.settings, self._default_sampling(self.state))

    def set_parameter(self, key: str, value: str) -> str:
        """Set a parameter by name; returns a sentence that says what it is now.

        A ctx beyond what the model's window takes is refused: the window would have its way.
        """
        state = self.state
        settings, name = with_parameter(state.settings, key, value)
        read_mode(settings, self.lm)  # refuses one that the model cannot do
        default = self._default_sampling(replace(state, settings=settings))
        shown = parameters(settings, default)[name]
        history = state.history
        if settings.ctx != state.settings.ctx:
            self._answerer.check_ctx(replace(state, settings=settings))
            history = replace(history, left_out=0)  # what had to go may fit now
        if settings != state.settings:
            self._edit(State(state.documents, history, settings), f"set {name} to {shown}")
        return f"{name} is {shown}"

    def _default_sampling(self, state: State) -> Sampling:
        return default_sampling(self.lm, bool(state.documents))

    def set_system(self, text: str | None) -> None:
        """Set the system message, or take it away."""
        settings = replace(self.settings, system=text.strip() or None if text else None)
        if settings != self.settings:
            what = "set the system message" if settings.system else "removed the system message"
            self._edit(replace(self.state, settings=settings), what)

    def retokenized(
        self, tokenizer: Tokenizer, folder: Path, on_progress: OnProgress | None = None
    ) -> Mapping[TokenizedDocument, TokenizedDocument]:
        """Every document of every branch by the tokenizer of another model, which lies in
        ``folder``; empty where it gives the same ids, told by its file."""
        name = "tokenizer.json"
        if self.lm.tokenizer is tokenizer or (
            (self.lm.folder / name).read_bytes() == (folder / name).read_bytes()
        ):
            return {}
        documents = (each for state in self._branches.states() for each in state.documents)
        return rebuilt(documents, tokenizer, on_progress)

    def use_model(
        self,
        lm: LanguageModel,
        retokenized: Mapping[TokenizedDocument, TokenizedDocument] | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Go on with another model; documents are tokenized anew where its tokenizer differs.

        ``retokenized`` is what came of that where it is done already. Conversation, branches and
        undo stay. Not a step that can be undone.
        """
        if retokenized is None:
            retokenized = self.retokenized(lm.tokenizer, lm.folder, on_progress)
        anew = retokenized

        def change(state: State) -> State:
            history = replace(state.history, left_out=0)  # the window is another
            return State(tuple(anew.get(d, d) for d in state.documents), history, state.settings)

        self._become(self._branches.mapped(change), Answerer(lm))

    def undo(self) -> str:
        """Take the last step back; returns what it was (``dropped book.txt``)."""
        timeline = self._branches.timeline
        self._become(self._branches.with_timeline(timeline.undone()))
        return timeline.steps[timeline.at].what

    def redo(self) -> str:
        """Do again what was undone last; returns what it is."""
        timeline = self._branches.timeline.redone()
        self._become(self._branches.with_timeline(timeline))
        return timeline.steps[timeline.at].what

    def fork(self, name: str) -> None:
        """Copy the present state to a new branch and go on there."""
        self._branches = self._branches.forked(name)

    def switch(self, name: str) -> None:
        """Go on with another branch."""
        self._become(self._branches.switched(name))

    @property
    def branch(self) -> str:
        """The present branch's name; ``main`` at first."""
        return self._branches.current

    @property
    def branches(self) -> Mapping[str, State]:
        """Every branch's state, in the order they were made."""
        return self._branches.presents()

    def snapshot(self) -> Snapshot:
        """All that is saved."""
        return Snapshot(self.branches, self.branch, self.watched)

    def restore(
        self, branches: Mapping[str, State], branch: str, watched: frozenset[str] = frozenset()
    ) -> None:
        """Become what ``snapshot`` gave; nothing can be undone then."""
        self._become(Branches.of(branches, branch))
        self._watched = set(watched)

    def _become(self, branches: Branches, answerer: Answerer | None = None) -> None:
        """Make this the present; what raises has changed nothing."""
        answerer = answerer or self._answerer
        answerer.prepare(branches.timeline.present)
        self._answerer, self._branches = answerer, branches

    def _edit(self, state: State, what: str) -> None:
        self._become(self._branches.edited(state, what))

    def _turn(self, question: str, start: State, what: str) -> Generator[Event, None, None]:
        """Ask as from the state ``start``; a turn that comes of it is one step."""
        before = self._branches
        if start is not self.state:
            self._become(before.edited(start, what))
        shown = self._branches

        def keep(state: State) -> None:
            if self._branches is shown:  # and was not edited meanwhile
                self._branches = before.edited(state, what)

        try:
            yield from self._answerer.answer(start, question, keep)
        finally:
            if self._branches is shown:
                self._branches = before

    def _last_turn(self) -> str:
        if not self.turns:
            raise UsageError("there is no turn yet", "ask something first")
        return self.turns[-1].question

    def _at(self, number: int) -> TokenizedDocument:
        count = len(self.documents)
        if 1 <= number <= count:
            return self.documents[number - 1]
        if not count:
            raise UsageError("there are no documents", "use /read to add one")
        choice = "it is number 1" if count == 1 else f"choose 1 to {count}"
        raise UsageError(f"there is no document {number}", choice)

    def _others(self, number: int) -> tuple[TokenizedDocument, ...]:
        """All documents but one."""
        return (*self.documents[: number - 1], *self.documents[number:])

    def _replace(self, number: int, new: TokenizedDocument, what: str) -> None:
        documents = (*self.documents[: number - 1], new, *self.documents[number:])
        self.set_documents(documents, what)
