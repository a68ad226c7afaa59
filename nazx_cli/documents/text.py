"""The plain-text reader: prose, Markdown, source code, anything that decodes as text."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from nazx_cli.documents.encoding import marked_encoding, narrow_encoding, wide_encoding
from nazx_cli.documents.reader import Advance, Text
from nazx_cli.errors import DocumentError

_HEAD = 1 << 20  # bytes that tell whether a file is text
_CHUNK = 1 << 20  # bytes decoded at a time; pieces this big are given back to the system
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1b")) + b"\x7f"
_MOST_CONTROLS = 0.01  # of those bytes; random bytes have 0.11
_MOST_DAMAGED = 0.01  # of the characters, for an encoding that had to be guessed
_JAPANESE_SHIFT = (b"\x1b$B", b"\x1b$@")  # ISO-2022-JP: all of it is ASCII bytes
_HIGH = re.compile(rb"[\x80-\xff]")
_SAMPLE = 1 << 16  # bytes of lines that tell an encoding, if a file is not too big for so few
_STRIDE, _LEAST_OF_STRIDE = 1 << 20, 1 << 10
_LONG_LINE = 1 << 14


def accepts(head: bytes, file: BinaryIO) -> bool:
    """True where a file that begins with ``head`` may be text."""
    return b"\0" not in head or bool(marked_encoding(head) or wide_encoding(head))


def read(file: BinaryIO, advance: Advance) -> Text:
    """The file's text; DocumentError where it is none.

    Decoded a chunk at a time, so that next to nothing but the text itself is held.
    """
    file.seek(0)
    head = file.read(_HEAD)
    if encoding := marked_encoding(head):
        try:
            return Text(_decode(file, encoding, "strict", advance))
        except UnicodeDecodeError:
            name = encoding.removesuffix("-sig").upper()
            raise DocumentError(f"is broken {name}") from None
    if b"\0" in head:
        return Text(_decode_guess(file, wide_encoding(head), "is a binary file", advance))
    if _share(head, _CONTROLS) > _MOST_CONTROLS:
        raise DocumentError("is a binary file")
    if head.isascii() and any(shift in head for shift in _JAPANESE_SHIFT):
        return Text(_decode_guess(file, "iso2022_jp", "is a binary file", advance))
    try:
        return Text(_decode(file, "utf-8", "strict", advance))
    except UnicodeDecodeError:
        return Text(_decode_damaged_or_other(file, advance))


def decode(data: bytes) -> str:
    """What ``read`` makes of a file that holds ``data``."""
    return read(io.BytesIO(data), lambda done: None).text


def normalize_newlines(text: str) -> str:
    """``\\r\\n`` and ``\\r`` become ``\\n``; text without them is not copied."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _decode(file: BinaryIO, encoding: str, errors: str, advance: Advance) -> str:
    """All of ``file``; a zero byte in an encoding of bytes is a DocumentError."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    has_zeros = encoding.startswith(("utf-16", "utf-32"))
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder(encoding)(errors), translate=True
    )
    pieces: list[str] = []
    while chunk := file.read(_CHUNK):
        if b"\0" in chunk and not has_zeros:
            raise DocumentError("is a binary file")
        pieces.append(decoder.decode(chunk))
        advance(file.tell() / size)
    pieces.append(decoder.decode(b"", final=True))
    return "".join(pieces)


def _decode_damaged_or_other(file: BinaryIO, advance: Advance) -> str:
    """UTF-8 with a few damaged bytes, else the encoding that fits best."""
    text = _decode(file, "utf-8", "replace", advance)
    damaged = text.count("\ufffd")
    if _beyond_ascii(text) - damaged > 3 * damaged:
        return text
    del text
    guess = narrow_encoding(_telling_lines(file)) or "utf-8"
    return _decode_guess(file, guess, "is in an encoding that cannot be told", advance)


def _decode_guess(file: BinaryIO, guess: str | None, fault: str, advance: Advance) -> str:
    """``file`` in an encoding that was guessed from a part; a few bytes may be out of place."""
    if guess is None:
        raise DocumentError(fault)
    text = _decode(file, guess, "replace", advance)
    if text.count("\ufffd") > _MOST_DAMAGED * len(text):
        raise DocumentError(fault)
    return text


def _telling_lines(file: BinaryIO) -> bytes:
    """Lines that hold bytes beyond ASCII, from all over the file."""
    size = file.seek(0, io.SEEK_END)
    most = max(_LEAST_OF_STRIDE, _SAMPLE * _STRIDE // size)
    found: list[bytes] = []
    for start in range(0, size, _STRIDE):
        file.seek(start)
        chunk = file.read(_STRIDE)
        if start:  # a line cut in two may begin with half a character
            chunk = chunk.partition(b"\n")[2]
        if start + _STRIDE < size:
            chunk = chunk.rpartition(b"\n")[0]
        found += _lines_beyond_ascii(chunk, most)
    return b"\n".join(found) or _whole_characters(file)


def _whole_characters(file: BinaryIO) -> bytes:
    """The beginning of a file that is one line, cut where no character is."""
    file.seek(0)
    head = file.read(_SAMPLE + 1)
    return head if len(head) <= _SAMPLE else head[: max(map(head.rfind, (b" ", b".", b",")))]


def _lines_beyond_ascii(chunk: bytes, most: int) -> Iterator[bytes]:
    """Lines of ``chunk`` with bytes beyond ASCII, until there are ``most`` bytes of them."""
    at = 0
    while most > 0 and (high := _HIGH.search(chunk, at)):
        start = chunk.rfind(b"\n", 0, high.start()) + 1
        end = chunk.find(b"\n", high.start())
        at = end if end >= 0 else len(chunk)
        if at - start <= _LONG_LINE:
            most -= at - start
            yield chunk[start:at]


def _beyond_ascii(text: str) -> int:
    pieces = (text[at : at + _CHUNK] for at in range(0, len(text), _CHUNK))
    return sum(len(piece) - len(piece.encode("ascii", "ignore")) for piece in pieces)


def _share(data: bytes, members: bytes) -> float:
    return (len(data) - len(data.translate(None, members))) / max(1, len(data))
