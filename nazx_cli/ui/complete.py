"""Tab completion of the chat's commands and of what they take."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import PurePath
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from nazx_cli.errors import NazxError
from nazx_cli.ui import commands
from nazx_cli.ui.offers import OFFERS, Offer, settings
from nazx_cli.ui.words import LastWord, last_word

if TYPE_CHECKING:
    from nazx_cli.ui.chat import Chat
    from nazx_cli.ui.commands.command import Command


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
            if offer.text.startswith(word.text):
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
        display_meta=offer.about,
    )
