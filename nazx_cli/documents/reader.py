"""The contract of a document reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from nazx_cli.documents.document import Place

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
