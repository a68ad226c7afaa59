"""A chat as the commands see it: the workspace, where it is shown, where it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nazx_cli.errors import DocumentError, NazxError
from nazx_cli.ui.phrases import Stopwatch
from nazx_cli.ui.terminal.screen import Screen
from nazx_cli.ui.turn import Outcome, show_turn

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.session.events import Event
    from nazx_cli.session.saving.autosave import Autosave
    from nazx_cli.session.saving.session_file import ModelTag
    from nazx_cli.session.session import Session
    from nazx_cli.session.state import Turn
    from nazx_cli.ui.models import Models
    from nazx_cli.ui.terminal.gauge_line import Gauge
    from nazx_cli.ui.terminal.tables import Table

_OPTION = "/set parameter "


class Chat:
    """What a person chats in.

    ``draft`` is what the next prompt begins with; ``leaving`` ends the chat; ``interrupted``
    tells whether Ctrl-C stopped what was done last; ``watch`` runs since the last command was
    typed. ``gauge`` is None where none is to be shown.
    """

    def __init__(
        self, workspace: Session, screen: Screen, *, models: Models, autosave: Autosave
    ) -> None:
        self.workspace = workspace
        self.screen = screen
        self.models = models
        self.autosave = autosave
        self.gauge: Gauge | None = None
        self.leaving = self.interrupted = False
        self.draft = ""
        self.watch = Stopwatch()
        self._lost: set[str] = set()
        self._thought: tuple[Turn | None, str] = (None, "")
        self._tag: tuple[LanguageModel, ModelTag] | None = None

    @property
    def lm(self) -> LanguageModel:
        """The model that answers."""
        return self.workspace.lm

    @property
    def tag(self) -> ModelTag:
        """What saved sessions know the model by."""
        if self._tag is None or self._tag[0] is not self.lm:
            self._tag = (self.lm, self.models.tag(self.lm.name, self.lm.folder))
        return self._tag[1]

    def enter(self, workspace: Session) -> None:
        """Go on in another workspace."""
        self.workspace = workspace
        self.follow_model()

    def follow_model(self) -> None:
        """Have the gauge read the device and the limit of the present model."""
        if self.gauge is not None:
            self.gauge.device, self.gauge.limit = self.lm.device, self.lm.memory_limit

    def say(self, shown: str | Table) -> None:
        """What a command was asked for; unlike a note, ``--quiet`` does not silence it."""
        self.screen.say(shown)

    def done(self, what: str) -> None:
        """A command's short result, and how long it took."""
        self.say(f"{what} in {self.watch}")

    def ask(self, question: str) -> None:
        """Answer ``question`` on the documents as they are on disk now, where they are watched."""
        self.take_in_changes()
        self.follow(self.workspace.ask(question))

    def answer(self, question: str, *, as_json: bool = False) -> Outcome:
        """``ask`` where nobody sits before the screen: what came of it, which is saved."""
        self.take_in_changes()
        events = self.workspace.ask(question)
        thinking = self._shows_thinking
        outcome = show_turn(events, self.lm.name, self.screen, as_json=as_json, thinking=thinking)
        self.save()
        return outcome

    def follow(self, events: Iterator[Event]) -> None:
        """Show an answer as it comes."""
        outcome = show_turn(
            events,
            self.lm.name,
            self.screen,
            gauge=self.gauge,
            thinking=self._shows_thinking,
            option=_OPTION,
            every="/sources",
        )
        self.interrupted = outcome.interrupted
        if outcome.interrupted and self.lm.ranks > 1:
            self.leaving = True  # torchrun has had the same Ctrl-C, and ends all processes
        self._thought = self._last_turn, outcome.thinking.strip()
        if outcome.interrupted:
            self.screen.note("(stopped; what was said is kept)" if outcome.text else "(stopped)")

    @property
    def thinking(self) -> str:
        """What the model thought before the last answer, if it did and that answer is still the
        last one; it is kept nowhere else."""
        turn, thought = self._thought
        return thought if turn is self._last_turn else ""

    @property
    def _last_turn(self) -> Turn | None:
        turns = self.workspace.turns
        return turns[-1] if turns else None

    @property
    def _shows_thinking(self) -> bool:
        return self.workspace.settings.think == "on"

    def take_in_changes(self) -> None:
        """Read watched documents again whose files have changed."""
        workspace = self.workspace
        for n in workspace.changed():
            watch = Stopwatch()
            try:
                workspace.reload(n)
            except DocumentError as error:  # such as a file that is empty while it is written
                self.screen.note(f"note: {error.message}; what was read of it before stays")
                continue
            part = workspace.documents[n - 1]
            size = f"{len(part):,} tokens"
            self.screen.note(f"note: {part.name} has changed: read it again ({size}) in {watch}")
        missing = {workspace.documents[n - 1].name for n in workspace.missing()}
        for name in sorted(missing):
            if name not in self._lost:
                self.screen.note(f"note: {name} is gone from disk; what was read of it stays")
        self._lost = missing

    def save(self) -> None:
        """Save what has changed, if this chat is saved at all."""
        if self.autosave.name is not None:
            self.autosave.save(self.workspace, self.tag)

    def leave(self) -> int:
        """Save what is not saved yet; the exit code, after telling what cannot be."""
        self.save()
        failure = self.autosave.failure
        if failure is None or not self.workspace.turns:
            return 0
        self.screen.error(NazxError(f"this chat is not saved: {failure.message}"))
        return failure.exit_code
