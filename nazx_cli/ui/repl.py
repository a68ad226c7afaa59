"""The interactive chat: a prompt, slash commands, streamed answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from nazx_cli.errors import NazxError
from nazx_cli.ui import commands
from nazx_cli.ui.screen import Screen
from nazx_cli.ui.turn import show_turn

if TYPE_CHECKING:
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

    from nazx_cli.reading.passages import Passage
    from nazx_cli.session.session import Session

PROMPT = ">>> "


class Repl:
    """A chat about ``session``'s documents; ``sources`` are those of the last answer."""

    def __init__(
        self,
        session: Session,
        screen: Screen,
        history_file: Path | None = None,
        *,
        keyboard: Input | None = None,
        display: Output | None = None,
    ) -> None:
        self.session = session
        self.screen = screen
        self.sources: tuple[Passage, ...] = ()
        self._prompt: PromptSession[str] = PromptSession(
            history=_history(history_file),
            key_bindings=_keys(),
            reserve_space_for_menu=0,
            input=keyboard,
            output=display,
        )

    def run(self) -> None:
        """Prompt and answer until the person leaves."""
        interrupts = 0
        while True:
            try:
                line = self._prompt.prompt(PROMPT)
            except EOFError:
                return
            except KeyboardInterrupt:
                interrupts += 1
                if interrupts > 1:
                    return
                self.screen.note("(Ctrl-C again, Ctrl-D or /exit leaves)")
                continue
            interrupts = 0
            if not self.handle(line.strip()):
                return

    def handle(self, line: str) -> bool:
        """Carry out what was typed; False where the chat is to end."""
        if not line:
            return True
        try:
            if line.startswith("/"):
                return self._command(line)
            outcome = show_turn(self.session, line, self.screen)
        except NazxError as error:
            self.screen.error(error)
            return True
        self.sources = outcome.sources
        if outcome.interrupted:
            self.screen.note("(stopped; what was said is kept)" if outcome.text else "(stopped)")
        return True

    def _command(self, line: str) -> bool:
        name, _, rest = line.partition(" ")
        command = commands.find(name)
        if command is None:
            self.screen.note(f"there is no {name}; did you mean {commands.nearest(name)}?")
            return True
        return command.run(self, rest.strip())


def _history(path: Path | None) -> History:
    """What was typed in earlier chats; in memory only where the file cannot be written."""
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        """Clear the line; on an empty one, count towards leaving."""
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    return keys
