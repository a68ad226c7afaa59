"""The interactive chat: a prompt and its keys, slash commands, streamed answers."""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style

from nazx_cli.errors import NazxError
from nazx_cli.names import MAIN_BRANCH
from nazx_cli.ui import commands
from nazx_cli.ui.complete import ChatCompleter

if TYPE_CHECKING:
    from prompt_toolkit.formatted_text import AnyFormattedText

    from nazx_cli.ui.chat import Chat


PROMPT = ">>> "
FENCE = '"""'
_MENU = 8  # rows kept free below the prompt while completions are shown
_REFRESH = 0.5  # seconds between two drawings of the toolbar
_STYLE = Style.from_dict({"bottom-toolbar": "noreverse", "prompt": "bold"})
_COMMAND = re.compile(r"/[^\s/]*(\s|$)")
"""How a command begins; ``/home/me is full`` is a question."""


_WORDS = ("exit", "quit", "bye")
"""What leaves without a slash, too."""


class Repl:
    """Prompts for questions and commands, and carries them out on ``chat``."""

    def __init__(self, chat: Chat, history: Path) -> None:
        self.chat = chat
        toolbar = self._toolbar if chat.gauge is not None else None
        self._prompt: PromptSession[str] = PromptSession(
            history=_history(history),
            key_bindings=keys(),
            multiline=True,  # for the keys of several lines; Enter sends
            prompt_continuation=_continuation,
            completer=ChatCompleter(chat),
            complete_while_typing=False,
            reserve_space_for_menu=_MENU,
            bottom_toolbar=toolbar,
            refresh_interval=_REFRESH if toolbar else 0,
            style=_STYLE,
            enable_suspend=True,
        )

    def run(self) -> None:
        """Prompt and answer until the person leaves."""
        interrupts = 0
        while not self.chat.leaving:
            draft, self.chat.draft = self.chat.draft, ""
            try:
                line = self._prompt.prompt(self._message(), default=draft)
                # One that stopped an answer counts: pressed twice, Ctrl-C always leaves.
                interrupts = int(self.handle(line))
            except EOFError:
                return
            except KeyboardInterrupt:
                interrupts += 1
                if interrupts > 1:
                    return
                self.chat.screen.note("(Ctrl-C again, Ctrl-D or /exit leaves)")

    def handle(self, line: str) -> bool:
        """Carry out what was typed, and save what came of it; True where Ctrl-C stopped it."""
        line = line.strip()
        self.chat.interrupted = False
        if not line:
            return False
        try:
            if line.lower() in _WORDS:
                self.chat.leaving = True
            elif _COMMAND.match(line):
                commands.run(self.chat, line)
            elif question := unfenced(line):
                self.chat.ask(question)
        except NazxError as error:
            self.chat.screen.error(error)
        except KeyboardInterrupt:
            self.chat.interrupted = True
            self.chat.screen.note("(stopped)")
        self.chat.save()
        return self.chat.interrupted

    def _message(self) -> str:
        branch = self.chat.workspace.branch
        return PROMPT if branch == MAIN_BRANCH else f"({branch}) {PROMPT}"

    def _toolbar(self) -> AnyFormattedText:
        assert self.chat.gauge is not None
        return self.chat.gauge.fragments(get_app().output.get_size().columns)


def _continuation(width: int, line: int, wrapped: int) -> str:
    """What stands before a further line; nothing before the rest of one that is too long."""
    return "" if wrapped else "... "


def _history(path: Path) -> History:
    """What was typed in earlier chats; in memory only where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return _LastingHistory(str(path))


class _LastingHistory(FileHistory):
    """Does not end a chat where the disk is full."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


def is_open(text: str) -> bool:
    """Whether ``text`` begins with a fence and has not come to the one that ends it."""
    stripped = text.strip()
    if not stripped.startswith(FENCE):
        return False
    return len(stripped) < 2 * len(FENCE) or not stripped.endswith(FENCE)


def unfenced(text: str) -> str:
    """What stands between the fences; ``text`` itself where it has none."""
    text = text.strip()
    if text.startswith(FENCE) and not is_open(text):
        return text[len(FENCE) : -len(FENCE)].strip()
    return text


def keys() -> KeyBindings:
    """The chat's bindings."""
    bindings = KeyBindings()
    at_prompt = has_focus(DEFAULT_BUFFER)

    @bindings.add("enter", filter=at_prompt)
    def _(event: KeyPressEvent) -> None:
        """Send what is typed; between fences, begin a new line."""
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=at_prompt)
    def _(event: KeyPressEvent) -> None:
        """Begin a new line."""
        event.current_buffer.newline(copy_margin=False)

    @bindings.add("tab", filter=at_prompt)
    def _(event: KeyPressEvent) -> None:
        """Complete; at once where there is one way to, so that Enter can follow quickly."""
        buffer = event.current_buffer
        if buffer.complete_state is not None:
            buffer.complete_next()
            return
        asked = CompleteEvent(completion_requested=True)
        found = list(islice(buffer.completer.get_completions(buffer.document, asked), 2))
        if len(found) == 1:
            buffer.apply_completion(found[0])
        elif found:
            buffer.start_completion(insert_common_part=True)

    @bindings.add("c-c", filter=at_prompt)
    def _(event: KeyPressEvent) -> None:
        """Clear the line; on an empty one, count towards leaving."""
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    @bindings.add("c-g", filter=at_prompt)
    def _(event: KeyPressEvent) -> None:
        """Open the editor on what is typed."""
        event.current_buffer.tempfile_suffix = ".md"
        event.current_buffer.open_in_editor()

    return bindings
