"""Commands for several lines of one conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nazx_cli.ui.commands.command import Argument, Command, Words
from nazx_cli.ui.phrases import Stopwatch, counted

if TYPE_CHECKING:
    from nazx_cli.session.state import State
    from nazx_cli.ui.chat import Chat


def _fork(chat: Chat, words: Words) -> None:
    watch, origin = Stopwatch(), chat.workspace.branch
    chat.workspace.fork(words.values[0])
    chat.done(f"now in {words.values[0]}, a fork of {origin},", watch)


def _switch(chat: Chat, words: Words) -> None:
    name = words.get(0)
    if name is None:
        for each, state in chat.workspace.branches.items():
            here = "*" if each == chat.workspace.branch else " "
            chat.say(f"{here} {each}  {contents(state)}")
        return
    watch = Stopwatch()
    chat.workspace.switch(name)
    chat.done(f"now in {name} ({contents(chat.workspace.session.state)})", watch)


def contents(state: State) -> str:
    """``2 turns, 1 document``."""
    turns, documents = len(state.history.turns), len(state.parts)
    return f"{counted(turns, 'turn')}, {counted(documents, 'document')}"


COMMANDS = (
    Command(
        ("/fork",),
        "go on in a copy of this conversation",
        _fork,
        (Argument("NAME"),),
        "/fork idea",
        "Documents are shared, not copied. /switch main goes back.",
    ),
    Command(
        ("/switch",),
        "go to another fork; without NAME: list them",
        _switch,
        (Argument("NAME", "branch", required=False),),
        "/switch main",
    ),
)
