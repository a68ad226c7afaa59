"""The plain-text reader: prose, markdown, source code, anything that decodes as text."""

from __future__ import annotations

import codecs

from nazx_cli.errors import DocumentError

_BOMS = (  # UTF-32 first: its little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1b")) + b"\x7f"
_HIGH = bytes(range(128, 256))
_MOST_CONTROLS = 0.01  # of the bytes; random bytes have 0.11
_MOST_HIGH = 0.3  # of the bytes, for an 8-bit encoding; Western prose has under 0.1
_SAMPLE = 1 << 20  # bytes looked at to tell how much of a file is control characters


def accepts(head: bytes, suffix: str) -> bool:
    """True where a file that begins with ``head`` may be text, whatever its ``suffix``."""
    return head.startswith(tuple(mark for mark, _ in _BOMS)) or b"\0" not in head


def read(data: bytes) -> str:
    """Text of ``data`` with ``\\n`` line ends; DocumentError (without a name) where it is none."""
    return normalize_newlines(_decode(data))


def normalize_newlines(text: str) -> str:
    """``\\r\\n`` and ``\\r`` become ``\\n``; text without them is not copied."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _decode(data: bytes) -> str:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                raise DocumentError(f"is broken {encoding.removesuffix('-sig').upper()}") from None
    if b"\0" in data:
        raise DocumentError("is a binary file")
    if _share(data[:_SAMPLE], _CONTROLS) > _MOST_CONTROLS:
        raise DocumentError("is a binary file")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_damaged_or_8bit(data)


def _decode_damaged_or_8bit(data: bytes) -> str:
    """UTF-8 with a few damaged bytes, else Windows-1252 (which contains Latin-1's letters)."""
    text = data.decode("utf-8", errors="replace")
    damaged = text.count("\ufffd")
    # In UTF-8 every character beyond ASCII takes two bytes or more, all of them high.
    sound = len(text) - damaged - (len(data) - _count(data, _HIGH))
    if sound > 3 * damaged:
        return text
    del text
    if _share(data, _HIGH) > _MOST_HIGH:
        raise DocumentError("is in an encoding that cannot be told")
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:  # five codes are undefined there: no Western text has them
        raise DocumentError("is a binary file") from None


def _count(data: bytes, members: bytes) -> int:
    return len(data) - len(data.translate(None, members))


def _share(data: bytes, members: bytes) -> float:
    return _count(data, members) / max(1, len(data))
