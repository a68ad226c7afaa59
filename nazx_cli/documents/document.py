"""A document: a name and its text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A readable document.

    ``name`` is what sources show: the path as the person gave it, or ``stdin``. ``text`` has
    ``\\n`` line ends and no byte-order mark. ``format`` is the reader that made it (``text``).
    """

    name: str
    text: str
    format: str


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
