"""Putting a text together from blocks, noting where its pages and chapters begin."""

from __future__ import annotations

from nazx_cli.documents.document import Place
from nazx_cli.documents.reader import Text

LINE, PARAGRAPH = 1, 2
"""Newlines before a block: one that goes on from the block before, one that stands alone."""

_LABEL = 80  # characters of a heading that name a place


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
        words = " ".join(label.split())
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
