"""The chat's slash commands: one table serves dispatch, help and completion."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from nazx_cli.errors import UsageError
from nazx_cli.ui.commands import conversation, documents, settings
from nazx_cli.ui.commands.command import Argument, Command, Words
from nazx_cli.ui.phrases import Stopwatch
from nazx_cli.ui.terminal.tables import Table
from nazx_cli.ui.topics import show, topics

if TYPE_CHECKING:
    from nazx_cli.ui.chat import Chat

_KEYS = (
    ('"""', "begins and ends a question of several lines"),
    ("Tab", "completes commands, paths, numbers, names"),
    ("Ctrl-R", "searches what was typed before"),
    ("Ctrl-G", "opens $VISUAL or $EDITOR on what is typed"),
    ("Alt-Enter", "begins a new line"),
    ("Ctrl-C", "stops an answer; clears; twice leaves"),
    ("Ctrl-D", "leaves"),
)


def find(name: str) -> Command | None:
    """The command called ``name``, slash included."""
    return next((command for command in COMMANDS if name in command.names), None)


def get(name: str) -> Command:
    """The same; ``UsageError`` with the nearest name where there is none."""
    command = find(name)
    if command is None:
        names = [each for command in COMMANDS for each in command.names if len(each) > 2]
        nearest = [*difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5), "/help"][0]
        raise UsageError(f"there is no {name}", f"did you mean {nearest}?")
    return command


def row(command: Command) -> str:
    """The command in the table of the topic ``chat``."""
    names = " ".join(f"`{name}`" for name in command.names[1:])
    usage = command.usage.replace("|", "\\|")
    return f"| `{usage}`{names and ' '}{names} | {command.help} |"


def run(chat: Chat, line: str) -> None:
    """Carry out ``line``, a name and its arguments."""
    name, _, rest = line.partition(" ")
    command = get(name)
    chat.watch = Stopwatch()
    command.run(chat, command.parse(rest.strip()))


def _help(chat: Chat, words: Words) -> None:
    wanted = words.get(0)
    if wanted in topics():
        show(wanted, chat.screen.err)
        return
    if wanted is not None:
        command = get(wanted if wanted.startswith("/") else f"/{wanted}")
        chat.say(f"{command.usage}\n  {command.help}")
        if command.more:
            chat.say(f"  {command.more}")
        if command.example:
            chat.say(f"  as in: {command.example}")
        return
    rows = [(" ".join((each.usage, *each.names[1:])), each.help) for each in COMMANDS]
    chat.say(Table([*rows, ("", ""), *_KEYS]))
    chat.say(f"\ntopics: {', '.join(topics())}")


def _exit(chat: Chat, _: Words) -> None:
    chat.leaving = True


COMMANDS: tuple[Command, ...] = (
    *documents.COMMANDS,
    *conversation.COMMANDS,
    *settings.COMMANDS,
    Command(
        ("/help", "/?"),
        "this list, or about one command or topic",
        _help,
        (Argument("COMMAND|TOPIC", "help", required=False),),
    ),
    Command(("/exit", "/quit", "/bye"), "leave; exit too", _exit),
)
