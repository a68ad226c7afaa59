"""From ``nazx chat``'s options to a chat: a new one, or one that goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from nazx_cli.catalog.home import nazx_home
from nazx_cli.cli.options import (
    AnswerOptions,
    ChatOptions,
    ModelOptions,
    OutputOptions,
    make_screen,
)
from nazx_cli.cli.prepare import ChosenModels, changes, open_session, read_documents
from nazx_cli.errors import NazxError, UsageError
from nazx_cli.session.saving.store import Autosave, Store
from nazx_cli.session.session import Session
from nazx_cli.ui.chat import Chat
from nazx_cli.ui.gauge_line import Gauge
from nazx_cli.ui.restore import restore

if TYPE_CHECKING:
    from nazx_cli.session.saving.session_file import SessionFile
    from nazx_cli.ui.screen import Screen


def named_options(context: typer.Context) -> frozenset[str]:
    """Options given on the command line itself: not by environment, not by default."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(
        name for name, source in sources.items() if source and source.name == "COMMANDLINE"
    )


@dataclass(frozen=True)
class Opening:
    """What a chat is opened from."""

    files: tuple[str, ...]
    model: ModelOptions
    answers: AnswerOptions
    output: OutputOptions
    options: ChatOptions
    named: frozenset[str]
    interactive: bool

    def open(self) -> Chat:
        """The chat; its session, if it is saved, is this process's alone until it is closed."""
        screen = make_screen(self.output)
        changes(self.answers, self.named)  # first: a wrong value should not wait for a model
        store = Store(nazx_home() / "sessions")
        file = self._file(store, screen)
        try:
            return self._chat(store, file, screen)
        except BaseException:
            if file is not None:
                file.close()
            raise

    def _file(self, store: Store, screen: Screen) -> SessionFile | None:
        """The session that is asked for, or a new one where this chat is to be saved."""
        name = self.options.session
        if self.options.resume:
            if name is not None:
                raise UsageError("--resume and --session name two sessions", "give one of them")
            name = store.latest()
            if name is None:
                raise UsageError("there is no session to resume", "begin one with: nazx chat")
        if name is not None:
            return store.open(name, create=True)
        if self.options.no_save or not self.interactive:
            return None
        try:
            return store.open_fresh()
        except NazxError as error:
            screen.note(f"note: this chat will not be saved: {error.message}")
            return None

    def _chat(self, store: Store, file: SessionFile | None, screen: Screen) -> Chat:
        models = ChosenModels(self.model, self.answers.ctx, screen)
        goes_on = file is not None and bool(file.info.model)
        workspace = self._resumed(file, models) if goes_on and file else self._new(screen)
        keeper = Autosave(store, file, screen.error)
        chat = Chat(workspace, screen, models=models, autosave=keeper)
        if self.options.no_save and file is not None:
            keeper.close()
        elif goes_on or self.options.session is None:
            keeper.mark(workspace)  # a chat in which nothing is said leaves no file
        if goes_on and self.files:
            with screen.bar("tokenizing") as bar:
                result = workspace.read(self.files, on_progress=bar.update)
            chat.tell_skipped(result.skipped)
        if self.interactive and not (self.options.no_gauge or screen.quiet):
            chat.gauge = Gauge(lambda: chat.workspace.usage(), chat.lm.device, chat.lm.memory_limit)
        chat.save()
        return chat

    def _resumed(self, file: SessionFile, models: ChosenModels) -> Session:
        return restore(
            file,
            models,
            self.model.model if "model" in self.named else None,
            force=self.options.force,
            change=changes(self.answers, self.named),
        )

    def _new(self, screen: Screen) -> Session:
        documents = read_documents(self.files, None, screen)
        return open_session(self.model, self.answers, documents, screen)
