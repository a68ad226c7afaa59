"""A document, and the contract of the readers that make one."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from nazx_cli.errors import DocumentError


@dataclass(frozen=True)
class Place:
    """A page or chapter: ``label`` (``page 12``) holds from character ``start`` of the text."""

    start: int
    label: str


@dataclass(frozen=True)
class Origin:
    """The file that a document was read from, as it was then; ``path`` is absolute."""

    path: str
    sha256: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Document:
    """A readable document.

    ``name`` is what sources show: the path as the person gave it, or ``stdin``. ``text`` has
    ``\\n`` line ends and no byte-order mark. ``format`` is the reader that made it (``text``).
    ``places``, ascending, are empty where lines are what people look for. ``origin`` is None for
    text that comes from no file.
    """

    name: str
    text: str
    format: str
    places: tuple[Place, ...] = ()
    origin: Origin | None = None

    def place_at(self, character: int) -> str | None:
        """The page or chapter of a character of the text; None where there is none."""
        at = bisect_right(self.places, character, key=lambda place: place.start)
        return self.places[at - 1].label if at else None


@dataclass(frozen=True)
class Skipped:
    """A member of a folder or glob that was left out, and why, in a few words."""

    name: str
    reason: str


@dataclass(frozen=True)
class Gathered:
    """What a list of ``--file`` values came to."""

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...]


HEAD = 8192
"""Bytes at the start of a file that ``accepts`` is shown."""

Advance = Callable[[float], None]
"""Told how much of a file is read, from 0 to 1, while a long one is."""


@dataclass(frozen=True)
class Text:
    """What a reader makes of a file: its text, and the pages or chapters in it."""

    text: str
    places: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Reader:
    """A format's reader.

    ``accepts(head, file)`` says from a file's first ``HEAD`` bytes, and from the file where those
    do not tell, whether ``read(file, advance)`` should be tried; no name is given to it. ``file``
    can be sought in and stands anywhere. ``read`` raises a DocumentError whose message continues
    the file's name ("is a binary file"). Its text has ``\\n`` line ends.
    """

    format: str
    accepts: Callable[[bytes, BinaryIO], bool]
    read: Callable[[BinaryIO, Advance], Text]


def damaged(kind: str) -> DocumentError:
    """The error for a file that lacks what its format, ``kind``, requires."""
    return DocumentError(f"is a damaged {kind} file", "fetch or save it again")


LINE, PARAGRAPH = 1, 2
"""Newlines before a block: one that goes on from the block before, one that stands alone."""

_LABEL = 80  # characters of a heading that name a place
_SPACE = re.compile(r"\s")
_SETTLED = 1 << 16  # characters at a time: the words of a long text take ten times its memory


def settled(text: str) -> str:
    """``text`` with one space for each run of white space, and none at its ends."""
    pieces: list[str] = []
    begin = 0
    while begin < len(text):
        space = _SPACE.search(text, begin + _SETTLED)
        end = space.start() if space else len(text)
        pieces.append(" ".join(text[begin:end].split()))
        begin = end
    return " ".join(filter(None, pieces))


class TextBuilder:
    """A text that grows by blocks."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._places: list[Place] = []
        self._length = 0
        self._label = ""

    def __len__(self) -> int:
        return self._length

    def place(self, label: str) -> None:
        """The next block begins the page or chapter ``label``."""
        words = settled(label)
        self._label = words if len(words) <= _LABEL else words[: _LABEL - 1].rstrip() + "…"

    def heading(self, text: str) -> None:
        """A heading, which names the place that begins with it; said twice, it is put in once."""
        self.place(text)
        begun = self._places and self._places[-1]
        if not (begun and begun == Place(self._length - len(text), self._label)):
            self.add(text)
        self._label = ""

    def add(self, block: str, gap: int = PARAGRAPH) -> None:
        """A block of text, ``LINE`` or ``PARAGRAPH`` below the one before."""
        if self._pieces:
            self._pieces.append("\n" * gap)
            self._length += gap
        if self._label and not (self._places and self._places[-1].label == self._label):
            self._places.append(Place(self._length, self._label))
        self._label = ""
        self._pieces.append(block)
        self._length += len(block)

    def build(self) -> Text:
        """All of it, ended by a newline."""
        ending = "\n" if self._pieces else ""
        return Text("".join(self._pieces) + ending, tuple(self._places))
