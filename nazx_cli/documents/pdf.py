"""The PDF reader: the text of each page, its pages as places."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, BinaryIO

from nazx_cli.documents.document import Advance, Text, TextBuilder, damaged
from nazx_cli.documents.text import normalize_newlines
from nazx_cli.errors import DocumentError

if TYPE_CHECKING:
    from pypdf import PageObject, PdfReader

_UNSAYABLE = re.compile(r"[\x00\ud800-\udfff]")  # halves of characters, from faulty font tables


def accepts(head: bytes, file: BinaryIO) -> bool:
    """True for a file that begins as a PDF does."""
    return head.lstrip(b"\xef\xbb\xbf\0\t\n\f\r ").startswith(b"%PDF-")


def read(file: BinaryIO, advance: Advance) -> Text:
    """The text of all pages; DocumentError for an encrypted, damaged or merely scanned file."""
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # its remarks would reach the terminal
    reader, count = _open(file)
    builder = TextBuilder()
    unreadable = 0
    for index in range(count):
        text = _page_text(reader, index)
        builder.place(f"page {index + 1}")
        if text is None:
            unreadable += 1
            builder.add(f"[page {index + 1} cannot be read]")
        elif text:
            builder.add(text)
        advance((index + 1) / count)
    if unreadable == count:
        raise damaged("PDF")
    if not len(builder):
        raise DocumentError("has no text in it, only pictures of pages", "run OCR on it first")
    return builder.build()


def _open(file: BinaryIO) -> tuple[PdfReader, int]:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError, WrongPasswordError

    try:
        reader = PdfReader(file)
        if reader.is_encrypted and not reader.decrypt(""):  # many are, with no password at all
            raise _locked()
        return reader, len(reader.pages)
    except (DependencyError, FileNotDecryptedError, WrongPasswordError):
        raise _locked() from None
    except (DocumentError, MemoryError):
        raise
    except Exception:  # in a damaged file anything can be of any type: all of Python's errors
        raise damaged("PDF") from None


def _page_text(reader: PdfReader, index: int) -> str | None:
    """A page's text, without space around it; None where it cannot be read."""
    try:
        page: PageObject = reader.pages[index]
        text = page.extract_text()
    except MemoryError:
        raise
    except Exception:  # as above
        return None
    return normalize_newlines(_UNSAYABLE.sub("\ufffd", text)).strip()


def _locked() -> DocumentError:
    return DocumentError("is encrypted", "save it without its password, as qpdf --decrypt does")
