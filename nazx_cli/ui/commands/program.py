"""Commands about the chat itself: its help and its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nazx_cli.ui.commands.command import Argument, Command, Words

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


def _help(chat: Chat, words: Words) -> None:
    from nazx_cli.ui import commands

    wanted = words.get(0)
    if wanted is not None:
        command = commands.get(wanted if wanted.startswith("/") else f"/{wanted}")
        chat.say(f"{command.usage}\n  {command.help}")
        if command.more:
            chat.say(f"  {command.more}")
        if command.example:
            chat.say(f"  as in: {command.example}")
        return
    rows = [(_title(command), command.help) for command in commands.COMMANDS]
    width = max(len(title) for title, _ in rows)
    for title, what in (*rows, ("", ""), *_KEYS):
        chat.say(f"  {title:<{width}}  {what}".rstrip())


def _title(command: Command) -> str:
    also = " ".join(command.names[1:])
    return f"{command.usage} {also}".rstrip()


def _exit(chat: Chat, _: Words) -> None:
    chat.leaving = True


COMMANDS = (
    Command(
        ("/help", "/?"),
        "this list, or about one command",
        _help,
        (Argument("COMMAND", "command", required=False),),
    ),
    Command(("/exit", "/bye"), "leave", _exit),
)
