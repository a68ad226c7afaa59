"""A document: a name, its text, and where both come from."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


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
