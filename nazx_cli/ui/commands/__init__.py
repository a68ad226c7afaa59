"""The chat's slash commands: one table serves dispatch, help and completion."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from nazx_cli.errors import UsageError
from nazx_cli.ui.commands import (
    branches,
    conversation,
    documents,
    program,
    reports,
    sessions,
    settings,
)
from nazx_cli.ui.commands.command import Command

if TYPE_CHECKING:
    from nazx_cli.ui.chat import Chat

COMMANDS: tuple[Command, ...] = (
    *documents.COMMANDS,
    *reports.COMMANDS,
    *conversation.COMMANDS,
    *branches.COMMANDS,
    *sessions.COMMANDS,
    *settings.COMMANDS,
    *program.COMMANDS,
)


def find(name: str) -> Command | None:
    """The command called ``name``, slash included."""
    return next((command for command in COMMANDS if name in command.names), None)


def get(name: str) -> Command:
    """The same; ``UsageError`` with the nearest name where there is none."""
    command = find(name)
    if command is None:
        raise UsageError(f"there is no {name}", f"did you mean {nearest(name)}?")
    return command


def nearest(name: str) -> str:
    """The command name most like ``name``; /help where none is."""
    names = [each for command in COMMANDS for each in command.names if len(each) > 2]
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return close[0] if close else "/help"


def row(command: Command) -> str:
    """The command in the README's table."""
    names = " ".join(f"`{name}`" for name in command.names[1:])
    usage = command.usage.replace("|", "\\|")
    return f"| `{usage}`{names and ' '}{names} | {command.help} |"


def run(chat: Chat, line: str) -> None:
    """Carry out ``line``, a name and its arguments."""
    name, _, rest = line.partition(" ")
    command = get(name)
    command.run(chat, command.parse(rest.strip()))
