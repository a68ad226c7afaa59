"""What a slash command is: names, arguments, help, and what it does; and how what is typed
after its name is taken apart: into words, with quotes around what has spaces."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nazx_cli.errors import UsageError

if TYPE_CHECKING:
    from nazx_cli.ui.chat import Chat

_QUOTES = "'\""


@dataclass(frozen=True)
class Argument:
    """One argument: how help shows it, and what ``kind`` of thing completion offers for it
    (a key of ``complete.OFFERS``, or empty); ``choices`` are offered as they are."""

    shown: str
    kind: str = ""
    required: bool = True
    repeats: bool = False
    choices: tuple[str, ...] = ()

    @property
    def hint(self) -> str:
        """``PATH``, ``[NAME]``, ``PATH ...``."""
        shown = f"{self.shown} ..." if self.repeats else self.shown
        return shown if self.required else f"[{shown}]"


@dataclass(frozen=True)
class Words:
    """What was typed after a command's name, as it stands and as words."""

    text: str
    values: tuple[str, ...] = ()

    def get(self, at: int) -> str | None:
        """Word ``at``, from 0; None where there are fewer."""
        return self.values[at] if at < len(self.values) else None

    def number(self, at: int) -> int:
        """Word ``at`` as the number of a document."""
        try:
            return int(self.values[at].removeprefix("#"))
        except ValueError:
            raise UsageError(
                f"{self.values[at]!r} is no document's number", "type /docs to see the numbers"
            ) from None


@dataclass(frozen=True)
class Command:
    """A command; ``more`` is said about it where help is asked about it alone.

    ``raw``: the text after the name is not taken apart into words.
    """

    names: tuple[str, ...]
    help: str
    run: Callable[[Chat, Words], None]
    arguments: tuple[Argument, ...] = ()
    example: str = ""
    more: str = ""
    raw: bool = False

    @property
    def usage(self) -> str:
        """``/swap N PATH``."""
        return " ".join([self.names[0], *(argument.hint for argument in self.arguments)])

    def parse(self, text: str) -> Words:
        """The arguments in ``text``; ``UsageError`` where there are too few or too many."""
        words = () if self.raw else tuple(split_words(text))
        given = int(bool(text)) if self.raw else len(words)
        needed = [argument.hint for argument in self.arguments if argument.required]
        if given < len(needed):
            raise UsageError(
                f"{self.names[0]} needs {' '.join(needed[given:])}", f"type {self._form}"
            )
        endless = any(argument.repeats for argument in self.arguments)
        if given > len(self.arguments) and not endless:
            quotes = ", with quotes around what has spaces in it" if self.arguments else ""
            extra = words[len(self.arguments)]
            raise UsageError(
                f"{self.names[0]} does not take {extra!r}", f"type {self._form}{quotes}"
            )
        return Words(text, words)

    @property
    def _form(self) -> str:
        return f"{self.usage}, as in: {self.example}" if self.example else self.usage


def split_words(text: str, *, windows: bool = os.name == "nt") -> list[str]:
    """``text`` as a shell would take it apart; on Windows a backslash stands for itself.

    ``UsageError`` where a quotation mark is not closed.
    """
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    if windows:
        lexer.escape = ""
    try:
        return list(lexer)
    except ValueError:
        raise UsageError(
            "a quotation mark is not closed",
            'close it, or put "..." around a name with an apostrophe',
        ) from None


@dataclass(frozen=True)
class LastWord:
    """The word that is being typed: ``raw`` as it stands on the line, ``text`` what it means,
    and the words ``before`` it."""

    raw: str
    text: str
    before: tuple[str, ...]

    def written(self, text: str, *, closed: bool = True, windows: bool = os.name == "nt") -> str:
        """``text`` as it has to be typed in this word's place; ``closed`` ends its quotes."""
        special = set(text) & set(" \t'\"" + ("" if windows else "\\"))
        quote = self.raw[0] if self.raw[:1] in (*_QUOTES,) else '"' if special else ""
        if quote == "'" and "'" in text:
            quote = '"'
        if quote == '"' and not windows:
            text = text.replace("\\", "\\\\").replace('"', '\\"')
        return quote + text + (quote if closed else "")


def last_word(text: str, *, windows: bool = os.name == "nt") -> LastWord:
    """The unfinished word at the end of ``text``, empty after a space."""
    words: list[str] = []
    word, quote, start = "", "", -1
    characters = iter(enumerate(text))
    for at, character in characters:
        if not quote and character.isspace():
            if start >= 0:
                words.append(word)
            word, start = "", -1
            continue
        start = at if start < 0 else start
        if character == "\\" and quote != "'" and not windows:
            word += next(characters, (0, ""))[1]
        elif character == quote:
            quote = ""
        elif not quote and character in _QUOTES:
            quote = character
        else:
            word += character
    return LastWord(text[start:] if start >= 0 else "", word, tuple(words))
