"""Commands on what was said: again, back, elsewhere, in a fork, in a saved session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nazx_cli.errors import UsageError
from nazx_cli.reading.passages import source_line
from nazx_cli.session.saving.conversation import Conversation
from nazx_cli.ui.commands.command import Argument, Command, Words
from nazx_cli.ui.export import as_markdown, copy, export
from nazx_cli.ui.phrases import counted
from nazx_cli.ui.saved import table
from nazx_cli.ui.terminal.streams import raw

if TYPE_CHECKING:
    from nazx_cli.session.state import State, Turn
    from nazx_cli.ui.chat import Chat

_FORCE = "--force"


def _clear(chat: Chat, _: Words) -> None:
    chat.workspace.clear()
    chat.say("The conversation starts anew; the documents stay. /undo brings it back.")


def _undo(chat: Chat, _: Words) -> None:
    chat.say(f"undone: {chat.workspace.undo()} ({chat.watch})")


def _redo(chat: Chat, _: Words) -> None:
    chat.say(f"done again: {chat.workspace.redo()} ({chat.watch})")


def _regen(chat: Chat, _: Words) -> None:
    chat.take_in_changes()
    chat.follow(chat.workspace.regen())


def _edit(chat: Chat, _: Words) -> None:
    chat.draft = chat.workspace.take_back()
    chat.say("The last question is back on the line, its answer gone; /undo brings both back.")


def _sources(chat: Chat, words: Words) -> None:
    turns = chat.workspace.turns
    sources = turns[-1].sources if turns else ()
    if not sources:
        chat.say("The last answer had no sources.")
    elif words.get(0) is None:
        chat.screen.show_sources(sources, always=True)
    else:
        typed = words.values[0].removeprefix("#")
        number = int(typed) if typed.isdecimal() and len(typed) < 9 else 0
        if not 1 <= number <= len(sources):
            raise UsageError(f"there is no source {typed!r}", f"choose 1 to {len(sources)}")
        passage = sources[number - 1]
        place = source_line(passage).partition("  ")[0]
        chat.say(f"[{number}] {place}\n{passage.text.strip()}")


def _thinking(chat: Chat, _: Words) -> None:
    chat.say(chat.thinking or "Nothing was thought before the last answer, or it is gone.")


def _copy(chat: Chat, _: Words) -> None:
    answer = _last(chat).answer.strip()
    how = copy(answer, raw(chat.screen.out))
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
    name = words.values[0]
    text = as_markdown(Conversation.of(chat.workspace.state, chat.lm.name))
    path = export(text, name, overwrite=mark == "!", how=f'type /export "{name}" ! to overwrite it')
    chat.say(f"wrote {counted(len(chat.workspace.turns), 'turn')} to {path}")


def _last(chat: Chat) -> Turn:
    turns = chat.workspace.turns
    if not turns:
        raise UsageError("nothing has been said yet", "ask something first")
    return turns[-1]


def _fork(chat: Chat, words: Words) -> None:
    origin = chat.workspace.branch
    chat.workspace.fork(words.values[0])
    chat.done(f"now in {words.values[0]}, a fork of {origin},")


def _switch(chat: Chat, words: Words) -> None:
    name = words.get(0)
    if name is None:
        for each, state in chat.workspace.branches.items():
            here = "*" if each == chat.workspace.branch else " "
            chat.say(f"{here} {each}  {_contents(state)}")
        return
    chat.workspace.switch(name)
    chat.done(f"now in {name} ({_contents(chat.workspace.state)})")


def _contents(state: State) -> str:
    """``2 turns, 1 document``."""
    turns, documents = len(state.history.turns), len(state.documents)
    return f"{counted(turns, 'turn')}, {counted(documents, 'document')}"


def _save(chat: Chat, words: Words) -> None:
    autosave, name = chat.autosave, words.get(0)
    if name is None or name == autosave.name:
        autosave.save_now(chat.workspace, chat.tag)
    else:
        autosave.save_as(name, chat.workspace, chat.tag)
    chat.done(f"saved as {autosave.name}")


def _load(chat: Chat, words: Words) -> None:
    autosave, name, option = chat.autosave, words.values[0], words.get(1)
    if option not in (None, _FORCE):
        raise UsageError(f"/load knows no {option}", f"type /load {name}")
    if name == autosave.name:
        raise UsageError(f"{name} is the session you are in", "type /sessions to see the others")
    chat.save()
    file = autosave.store.open(name, create=False)
    try:
        force = option == _FORCE
        model = chat.tag.name if force else None
        found, saved = chat.models.find_saved(file, model, force=force)
        workspace = chat.models.restore(found, saved, file, loaded=chat.lm)
    except BaseException:
        file.close()
        raise
    autosave.change(file, workspace)
    chat.enter(workspace)
    stays = f"; {name} stays as it is saved" if autosave.keeps_nothing else ""
    chat.done(f"now in {name} ({_contents(workspace.state)}){stays}")


def _sessions(chat: Chat, _: Words) -> None:
    autosave = chat.autosave
    infos = autosave.store.infos()
    if not infos:
        chat.say("No session is saved yet.")
        return
    chat.say(table(infos, autosave.name))


COMMANDS = (
    Command(
        ("/sources",),
        "passages of the last answer; N: its text",
        _sources,
        (Argument("N", required=False),),
        "/sources 1",
    ),
    Command(
        ("/thinking",),
        "what was thought before the last answer",
        _thinking,
        more="It is in no later prompt and in no file. /set think on shows it as it comes.",
    ),
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
    Command(("/sessions",), "list the saved sessions", _sessions),
    Command(
        ("/save",),
        "save now; NAME: go on under that name",
        _save,
        (Argument("NAME", "session", required=False),),
        "/save notes",
        "Every turn is saved anyway. With a name, the session so far stays as it is.",
    ),
    Command(
        ("/load",),
        "go to a saved session",
        _load,
        (Argument("NAME", "session"), Argument(_FORCE, choices=(_FORCE,), required=False)),
        "/load notes",
        "Its model is loaded with it; --force goes on with the present one instead.",
    ),
)
