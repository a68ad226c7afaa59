"""Taking apart what is typed after a command: words, with quotes around what has spaces."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass

from nazx_cli.errors import UsageError

_QUOTES = "'\""


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
