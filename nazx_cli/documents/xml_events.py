"""Reading XML as a row of events, entities refused."""

from __future__ import annotations

from typing import Protocol
from xml.parsers import expat

from nazx_cli.errors import DocumentError

_TOO_CLEVER = "declares entities in its XML"


class XmlHandler(Protocol):
    """Told of elements and text in document order; names come without their namespace."""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins."""

    def end(self, tag: str) -> None:
        """An element ends."""

    def data(self, text: str) -> None:
        """Text, in pieces of any size."""


def parse_xml(data: bytes, handler: XmlHandler) -> None:
    """Tell ``handler`` what is in ``data``.

    Raises ``expat.ExpatError`` for what is not well-formed, and a DocumentError for a document
    that declares entities: no honest one does, and they can unpack to any size. Nothing outside
    of ``data`` is ever read.
    """
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True

    def start(tag: str, attributes: dict[str, str]) -> None:
        handler.start(_local(tag), {_local(name): value for name, value in attributes.items()})

    def end(tag: str) -> None:
        handler.end(_local(tag))

    def refuse(*_: object) -> None:
        raise DocumentError(_TOO_CLEVER, "save it again as plain text")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = handler.data
    parser.EntityDeclHandler = refuse
    parser.Parse(data, True)


def _local(name: str) -> str:
    return name.rpartition(" ")[2]
