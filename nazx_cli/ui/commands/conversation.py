"""Commands on what was said: again, back, elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nazx_cli.errors import UsageError
from nazx_cli.ui.commands.command import Argument, Command, Words
from nazx_cli.ui.export import copy, export
from nazx_cli.ui.phrases import Stopwatch, counted

if TYPE_CHECKING:
    from nazx_cli.session.state import Turn
    from nazx_cli.ui.chat import Chat


def _clear(chat: Chat, _: Words) -> None:
    chat.workspace.clear()
    chat.say("The conversation starts anew; the documents stay. /undo brings it back.")


def _undo(chat: Chat, _: Words) -> None:
    watch = Stopwatch()
    chat.say(f"undone: {chat.workspace.undo()} ({watch})")


def _redo(chat: Chat, _: Words) -> None:
    watch = Stopwatch()
    chat.say(f"done again: {chat.workspace.redo()} ({watch})")


def _regen(chat: Chat, _: Words) -> None:
    chat.take_in_changes()
    chat.follow(chat.workspace.regen())


def _edit(chat: Chat, _: Words) -> None:
    chat.draft = chat.workspace.take_back()
    chat.say("The last question is back on the line, its answer gone; /undo brings both back.")


def _sources(chat: Chat, _: Words) -> None:
    turns = chat.workspace.turns
    if turns and turns[-1].sources:
        chat.screen.show_sources(turns[-1].sources, always=True)
    else:
        chat.say("The last answer had no sources.")


def _copy(chat: Chat, _: Words) -> None:
    answer = _last(chat).answer.strip()
    how = copy(answer, chat.screen.out)
    if how is None:
        raise UsageError(
            "there is no clipboard that can be reached",
            "use /export FILE.md, or install wl-copy or xclip",
        )
    chat.say(f"copied the last answer ({len(answer):,} characters) {how}")


def _export(chat: Chat, words: Words) -> None:
    _last(chat)
    mark = words.get(1)
    if mark not in (None, "!"):
        raise UsageError(f"/export takes one file, not {mark!r} too", "put quotes around its name")
    path = export(chat.workspace, chat.lm.name, words.values[0], overwrite=mark == "!")
    chat.say(f"wrote {counted(len(chat.workspace.turns), 'turn')} to {path}")


def _last(chat: Chat) -> Turn:
    turns = chat.workspace.turns
    if not turns:
        raise UsageError("nothing has been said yet", "ask something first")
    return turns[-1]


COMMANDS = (
    Command(("/sources",), "the passages that the last answer was given", _sources),
    Command(("/regen",), "answer the last question anew", _regen),
    Command(("/edit",), "take the last question back, to change it", _edit),
    Command(("/undo",), "undo the last turn, edit or setting", _undo),
    Command(("/redo",), "do again what was undone", _redo),
    Command(("/clear",), "forget the conversation, keep the documents", _clear),
    Command(("/copy",), "copy the last answer to the clipboard", _copy),
    Command(
        ("/export",),
        "write the conversation down; ! overwrites",
        _export,
        (Argument("FILE.md", "path"), Argument("!", choices=("!",), required=False)),
        "/export talk.md",
        "Questions, answers and the sources of each, as Markdown.",
    ),
)
