"""What DOCX and EPUB share: members of a ZIP file, read with a bound on what they unpack to, and
XML as a row of events, entities refused.
"""

from __future__ import annotations

import io
import lzma
import posixpath
import re
import struct
import zipfile
import zlib
from typing import BinaryIO
from xml.parsers import expat

from nazx_cli.documents.document import damaged
from nazx_cli.errors import DocumentError

_MAGIC = b"PK\x03\x04"

UNPACKED_LIMIT = 256 << 20
"""Bytes that the members read of one file may come to: far more than any book's text."""
_RATIO = (
    200  # times the file's own size that they may come to; text packs to a third, at best to 2 %
)
_ALWAYS = 16 << 20  # bytes that they may come to whatever the file's size
_DEEPEST = 256  # elements in each other; a table in a table in a table takes a dozen

_ENCODING = re.compile(rb"\s*<\?xml[^>]+encoding\s*=\s*[\"']([\w.:-]{1,40})")

_DAMAGE = (  # what zipfile and the unpackers below it say to damaged files
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, NotImplementedError),
)


class Archive:
    """A ZIP file whose members are read by name; nothing is ever written to disk."""

    def __init__(self, file: BinaryIO, kind: str) -> None:
        """``kind`` names the format in errors ("EPUB")."""
        self._kind = kind
        size = file.seek(0, io.SEEK_END)
        self._limit = self._left = min(UNPACKED_LIMIT, max(_ALWAYS, _RATIO * size))
        try:
            self._zip = zipfile.ZipFile(file)
        except _DAMAGE:
            raise self.damaged() from None
        self._names = frozenset(self._zip.namelist())

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str) -> bytes:
        """A member's bytes; DocumentError where it is missing, damaged, locked or too big."""
        if name not in self._names:
            raise self.damaged()
        try:
            with self._zip.open(name) as member:
                data = member.read(self._left + 1)
        except _DAMAGE:
            raise self.damaged() from None
        except RuntimeError:  # what zipfile says to a member that needs a password
            raise DocumentError("is protected by a password", "give it without one") from None
        self._left -= len(data)
        if self._left < 0:
            raise DocumentError(
                f"unpacks to more than {self._limit >> 20} MiB",
                "take the text that you want out of it, and give that",
            )
        return data

    def damaged(self) -> DocumentError:
        """The error for a file that lacks what its format requires."""
        return damaged(self._kind)


def is_archive(head: bytes, file: BinaryIO, begins: bytes, *names: str) -> bool:
    """True for a ZIP file with ``begins`` in its head, or with all of these members."""
    if not head.startswith(_MAGIC):
        return False
    if begins in head:
        return True
    try:
        return set(names) <= set(zipfile.ZipFile(file).namelist())
    except _DAMAGE:
        return False


def member_beside(base: str, reference: str) -> str:
    """The member that ``reference``, a relative path in the member ``base``, names."""
    joined = posixpath.normpath(posixpath.join("/", posixpath.dirname(base), reference))
    return joined.lstrip("/")


class XmlHandler:
    """Told of elements and text in document order, and takes no notice; names come without their
    namespace."""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins."""

    def end(self, tag: str) -> None:
        """An element ends."""

    def data(self, text: str) -> None:
        """Text, in pieces of any size."""


class _Attributes(XmlHandler):
    def __init__(self, tag: str) -> None:
        self._tag = tag
        self.found: list[dict[str, str]] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == self._tag:
            self.found.append(attributes)


def attributes_of(data: bytes, tag: str) -> list[dict[str, str]]:
    """The attributes of every element of one name; raises as ``parse_xml``."""
    handler = _Attributes(tag)
    parse_xml(data, handler)
    return handler.found


def parse_xml(data: bytes, handler: XmlHandler) -> None:
    """Tell ``handler`` what is in ``data``.

    Raises ``expat.ExpatError`` for what is not well-formed, and a DocumentError for a document
    that declares entities, which can unpack to any size, or that nests its elements without end:
    no honest one does. Nothing outside of ``data`` is ever read.
    """
    try:
        _parse(data, handler)
    except (LookupError, ValueError):  # of an encoding that expat lacks: before any element
        _parse(_in_utf8(data), handler, "utf-8")


def _in_utf8(data: bytes) -> bytes:
    """XML in the encoding that it names."""
    named = _ENCODING.match(data)
    try:
        return data.decode(named[1].decode() if named else "utf-8").encode()
    except (LookupError, ValueError):
        raise expat.ExpatError("is not in the encoding that it names") from None


def _parse(data: bytes, handler: XmlHandler, encoding: str | None = None) -> None:
    parser = expat.ParserCreate(encoding, namespace_separator=" ")
    parser.buffer_text = True
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise DocumentError(
                f"has more than {_DEEPEST} elements in each other", "save it again as plain text"
            )
        handler.start(_local(tag), {_local(name): value for name, value in attributes.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        handler.end(_local(tag))

    def refuse(*_: object) -> None:
        raise DocumentError("declares entities in its XML", "save it again as plain text")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = handler.data
    parser.EntityDeclHandler = refuse
    parser.Parse(data, True)


def _local(name: str) -> str:
    return name.rpartition(" ")[2]
