"""What completion offers for each kind of argument."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.ui.phrases import counted

if TYPE_CHECKING:
    from nazx_cli.ui.chat import Chat

_SEPARATORS = "/\\" if os.name == "nt" else "/"


@dataclass(frozen=True)
class Offer:
    """What can stand in a word's place, and what is said about it beside; ``goes_on`` where more
    of the word is to follow, as after a folder."""

    text: str
    about: str = ""
    is_path: bool = False
    goes_on: bool = False


def settings(chat: Chat, before: Sequence[str]) -> list[Offer]:
    """What ``/set`` can go on with after the words ``before``."""
    from nazx_cli.reading.plan import READ_MODES

    values = chat.workspace.parameters()
    keys = [Offer(key, f"now {value}") for key, value in values.items()]
    if not before:
        return [Offer("parameter", "K V"), Offer("system", "TEXT"), *keys]
    if list(before) == ["parameter"]:
        return keys
    return [Offer(mode) for mode in READ_MODES] if before[-1] == "read" else []


def _paths(chat: Chat, word: str) -> Iterator[Offer]:
    cut = max(word.rfind(separator) for separator in _SEPARATORS) + 1
    typed, start = word[:cut], word[cut:]
    folder = Path(typed or ".").expanduser()
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not entry.name.startswith(start) or (entry.name[0] == "." and not start):
            continue
        is_folder = entry.is_dir()
        text = typed + entry.name + ("/" if is_folder else "")
        yield Offer(text, is_path=True, goes_on=is_folder)


def _documents(chat: Chat, word: str) -> Iterator[Offer]:
    for n, part in enumerate(chat.workspace.documents, 1):
        yield Offer(str(n), part.document.name)


def _sessions(chat: Chat, word: str) -> Iterator[Offer]:
    for info in chat.autosave.store.infos() if chat.autosave else ():
        turns, documents = counted(info.turns, "turn"), counted(info.documents, "document")
        yield Offer(info.name, info.problem or f"{turns}, {documents}")


def _branches(chat: Chat, word: str) -> Iterator[Offer]:
    for name in chat.workspace.branches:
        yield Offer(name, "here" if name == chat.workspace.branch else "")


def _models(chat: Chat, word: str) -> Iterator[Offer]:
    yield from _known_models()
    if word[:1] in (".", "~", *_SEPARATORS):
        yield from _paths(chat, word)


@cache
def _known_models() -> tuple[Offer, ...]:
    """Looked up once in a chat: it reads the headers of every model on the machine."""
    from nazx_cli.catalog.registry import Registry
    from nazx_cli.catalog.store import stored_models

    here = {model.name: "on this machine" for model in stored_models()}
    known = {entry.name: entry.description for entry in Registry.load().entries.values()}
    return tuple(Offer(name, about) for name, about in (known | here).items())


def _commands(chat: Chat, word: str) -> Iterator[Offer]:
    from nazx_cli.ui.commands import COMMANDS

    for command in COMMANDS:
        name = command.names[0] if word.startswith("/") else command.names[0][1:]
        yield Offer(name, command.help)


OFFERS: dict[str, Callable[[Chat, str], Iterator[Offer]]] = {
    "path": _paths,
    "document": _documents,
    "session": _sessions,
    "branch": _branches,
    "model": _models,
    "command": _commands,
}
