"""A chat without a terminal, whose model says what it is told to."""

from __future__ import annotations

import io
from pathlib import Path

from cli_helpers import ScriptedModel
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import DummyInput, Input
from prompt_toolkit.output import DummyOutput

from nazx_cli.catalog.stored import nazx_home
from nazx_cli.memory.plan import LoadOptions
from nazx_cli.session.saving.autosave import Autosave
from nazx_cli.session.saving.store import Store
from nazx_cli.session.session import Session
from nazx_cli.ui.chat import Chat
from nazx_cli.ui.models import Models
from nazx_cli.ui.repl import Repl
from nazx_cli.ui.terminal.screen import Screen


def new_chat(session: Session, screen: Screen) -> Chat:
    """A chat that is not saved unless it is asked to."""
    autosave = Autosave(Store(nazx_home() / "sessions"), None, screen.error)
    models = Models(LoadOptions(), screen)
    return Chat(session, screen, models=models, autosave=autosave)


def new_repl(chat: Chat, keyboard: Input, history: Path | None = None) -> Repl:
    """A prompt that reads ``keyboard`` and draws nowhere."""
    with create_app_session(keyboard, DummyOutput()):
        return Repl(chat, history or nazx_home() / "history")


class Talk:
    """A chat; calling it with a line gives what that showed on stderr."""

    def __init__(self, lm: ScriptedModel) -> None:
        self.lm = lm
        self.out, self.err = io.StringIO(), io.StringIO()
        self.chat = new_chat(Session(lm), Screen(self.out, self.err))  # type: ignore[arg-type]
        self._repl = new_repl(self.chat, DummyInput())

    @property
    def workspace(self) -> Session:
        return self.chat.workspace

    @property
    def shown(self) -> str:
        """All that was shown on stderr."""
        return self.err.getvalue()

    def __call__(self, line: str) -> str:
        before = len(self.shown)
        self._repl.handle(line)
        return self.shown[before:]


def scripted(*answers: str, lm: ScriptedModel | None = None) -> Talk:
    """A chat with a model that gives these answers."""
    return Talk(lm or ScriptedModel(list(answers)))
