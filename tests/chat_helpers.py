"""A chat without a terminal, whose model says what it is told to."""

from __future__ import annotations

import io

from cli_helpers import ScriptedModel
from prompt_toolkit.input import DummyInput
from prompt_toolkit.output import DummyOutput

from nazx_cli.session.session import Session
from nazx_cli.session.workspace import Workspace
from nazx_cli.ui.chat import Chat
from nazx_cli.ui.repl import Repl
from nazx_cli.ui.screen import Screen


class Talk:
    """A chat; calling it with a line gives what that showed on stderr."""

    def __init__(self, lm: ScriptedModel) -> None:
        self.lm = lm
        self.out, self.err = io.StringIO(), io.StringIO()
        self.chat = Chat(Workspace(Session(lm)), Screen(self.out, self.err))  # type: ignore[arg-type]
        self._repl = Repl(self.chat, keyboard=DummyInput(), display=DummyOutput())

    @property
    def workspace(self) -> Workspace:
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
