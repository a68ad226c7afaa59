"""The chat's slash commands: one table serves dispatch, help and suggestions."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nazx_cli.ui.repl import Repl


@dataclass(frozen=True)
class Command:
    """A command; ``run`` gets the chat and what was typed after the name.

    It returns False where the chat is to end.
    """

    names: tuple[str, ...]
    help: str
    run: Callable[[Repl, str], bool]


def _help(repl: Repl, _: str) -> bool:
    width = max(len(" ".join(command.names)) for command in COMMANDS)
    for command in COMMANDS:
        repl.screen.note(f"  {' '.join(command.names):<{width}}  {command.help}")
    repl.screen.note("Ctrl-C stops an answer, twice leaves; Ctrl-D leaves.")
    return True


def _clear(repl: Repl, _: str) -> bool:
    repl.session.clear()
    repl.sources = ()
    repl.screen.note("The conversation starts anew; the documents stay.")
    return True


def _sources(repl: Repl, _: str) -> bool:
    if repl.sources:
        repl.screen.show_sources(repl.sources, always=True)
    else:
        repl.screen.note("The last answer had no sources.")
    return True


def _exit(repl: Repl, _: str) -> bool:
    return False


COMMANDS: tuple[Command, ...] = (
    Command(("/help", "/?"), "show this list", _help),
    Command(("/clear",), "forget the conversation, keep the documents", _clear),
    Command(("/sources",), "the passages that the last answer was given", _sources),
    Command(("/exit", "/bye"), "leave", _exit),
)


def find(name: str) -> Command | None:
    """The command called ``name``, slash included."""
    return next((command for command in COMMANDS if name in command.names), None)


def nearest(name: str) -> str:
    """The command name most like ``name``; /help where none is."""
    names = [each for command in COMMANDS for each in command.names]
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return close[0] if close else "/help"
