"""Tab completion of the chat's commands, and what there is to offer for their arguments."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import starmap
from pathlib import PurePath
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from nazx_cli.documents.control import strip_control
from nazx_cli.errors import NazxError
from nazx_cli.foreign import expanded
from nazx_cli.names import READ_MODES, SUMMARIES, THINKING
from nazx_cli.ui import commands
from nazx_cli.ui.commands.command import LastWord, last_word
from nazx_cli.ui.phrases import counted
from nazx_cli.ui.topics import topics

if TYPE_CHECKING:
    from nazx_cli.ui.chat import Chat
    from nazx_cli.ui.commands.command import Command

_SEPARATORS = "/\\" if os.name == "nt" else "/"


class ChatCompleter(Completer):
    """Completes lines that begin with a slash; questions are left alone."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        """Completions of the word before the cursor."""
        line = document.text_before_cursor
        if not line.startswith("/") or "\n" in line:
            return
        name, space, rest = line.partition(" ")
        if not space:
            yield from _names(name)
            return
        command = commands.find(name)
        if command is None or not command.arguments:
            return
        word = last_word(rest)
        for offer in self._offers(command, word):
            # A name that would act on the terminal cannot be typed, nor be shown as it is.
            if offer.text.startswith(word.text) and strip_control(offer.text) == offer.text:
                yield _completion(word, offer)

    def _offers(self, command: Command, word: LastWord) -> list[Offer]:
        if command.raw:
            return settings(self._chat, word.before)
        at, last = len(word.before), len(command.arguments) - 1
        if at > last and not command.arguments[last].repeats:
            return []
        argument = command.arguments[min(at, last)]
        offers = [Offer(choice) for choice in argument.choices]
        if argument.kind:
            with suppress(NazxError, OSError):  # a folder or a store that is closed to us
                offers += OFFERS[argument.kind](self._chat, word.text)
        return offers


def _names(typed: str) -> Iterator[Completion]:
    for command in commands.COMMANDS:
        for name in command.names:
            if name.startswith(typed):
                text = f"{name} " if command.arguments else name
                yield Completion(text, -len(typed), display=name, display_meta=command.help)


def _completion(word: LastWord, offer: Offer) -> Completion:
    shown = offer.text
    if offer.is_path:
        shown = PurePath(offer.text).name + (os.sep if offer.goes_on else "")
    return Completion(
        word.written(offer.text, closed=not offer.goes_on),
        -len(word.raw),
        display=shown,
        display_meta=strip_control(offer.about),
    )


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
    values = chat.workspace.parameters()
    keys = [Offer(key, f"now {value}") for key, value in values.items()]
    if not before:
        return [Offer("parameter", "K V"), Offer("system", "TEXT"), *keys]
    if list(before) == ["parameter"]:
        return keys
    if before[-1] == "grounding":
        return [Offer("on"), Offer("off")]
    choices = {"read": READ_MODES, "summaries": SUMMARIES, "think": THINKING}.get(before[-1], {})
    return [Offer(*choice) for choice in choices.items()]


def _paths(chat: Chat, word: str) -> Iterator[Offer]:
    cut = max(word.rfind(separator) for separator in _SEPARATORS) + 1
    typed, start = word[:cut], word[cut:]
    folder = expanded(typed or ".")
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not entry.name.startswith(start) or (entry.name[0] == "." and not start):
            continue
        is_folder = entry.is_dir()
        text = typed + entry.name + ("/" if is_folder else "")
        yield Offer(text, is_path=True, goes_on=is_folder)


def _documents(chat: Chat, word: str) -> Iterator[Offer]:
    documents = enumerate(chat.workspace.documents, 1)
    return (Offer(str(n), part.document.name) for n, part in documents)


def _sessions(chat: Chat, word: str) -> Iterator[Offer]:
    for info in chat.autosave.store.infos():
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
    from nazx_cli.catalog.stored import stored_models

    here = {model.name: "on this machine" for model in stored_models()}
    known = {entry.name: entry.description for entry in Registry.load().entries.values()}
    return tuple(starmap(Offer, (known | here).items()))


def _help(chat: Chat, word: str) -> Iterator[Offer]:
    slash = "/" * word.startswith("/")
    known = {f"{slash}{each.names[0][1:]}": each.help for each in commands.COMMANDS}
    return starmap(Offer, (known | topics()).items())


OFFERS: dict[str, Callable[[Chat, str], Iterator[Offer]]] = {
    "path": _paths,
    "document": _documents,
    "session": _sessions,
    "branch": _branches,
    "model": _models,
    "help": _help,
}
