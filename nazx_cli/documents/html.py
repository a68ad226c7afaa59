"""The HTML reader: the words of a page, its headings as places."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import BinaryIO

from nazx_cli.documents.document import LINE, PARAGRAPH, Advance, Text, TextBuilder, settled
from nazx_cli.documents.text import decode, marked_encoding, normalize_newlines

_BEGINNING = re.compile(
    r"\ufeff?(?:\s|<!--(?:(?!-->).)*-->|<\?xml[^>]*>)*<(?:!doctype\s+html|(?:html|head|body)[\s>])",
    re.IGNORECASE | re.DOTALL,
)
_CHARSET = re.compile(
    rb"<\?xml[^>]+encoding=[\"']([\w-]{1,40})|<meta[^>]+charset=[\"']?\s*([\w-]{1,40})",
    re.IGNORECASE,
)
_CHARSET_WITHIN = 4096  # bytes; the standard asks for 1024
_ASCII = r"<a href='\x41\u0041'>+AGE- xn--a"
"""What an encoding leaves as it is in which what it is called could be read: not UTF-16, and none
of Python's that stand for something else than characters (``unicode_escape``, ``punycode``)."""
_WESTERN = ("iso-8859-1", "iso8859-1", "latin1", "latin-1", "us-ascii", "ascii")
_MEANT = ("cp1252", "latin-1")
"""What pages that name one of ``_WESTERN`` are in: their quotation marks and dashes are Windows'.
So the standard has it, and browsers read them."""
_SLICE = 1 << 18  # characters parsed between two reports of progress


def _tags(names: str) -> frozenset[str]:
    return frozenset(names.split())


_DROPPED = _tags(
    "script style nav noscript template iframe object svg select textarea button audio video "
    "canvas annotation datalist"
)
_DROPPED_ROLES = _tags("navigation search")
_DROPPED_CLASSES = _tags("headerlink navheader navfooter")
"""What links to a heading (Sphinx, MkDocs), and to other pages (DocBook)."""
_NAVIGATION = re.compile(r"(?:\[[^\[\]]{1,24}\]\s*){3,}")
"""A line of nothing but words in brackets: ``[Top] [Contents] [Index]``."""
_HEADINGS = _tags("h1 h2 h3 h4 h5 h6")
_PARAGRAPHS = _HEADINGS | _tags(
    "address article aside blockquote center dl details fieldset figure footer form header hgroup "
    "hr main menu ol p pre section table ul"
)
_LINES = _tags("body br caption dd div dt figcaption html legend li summary title tr")
_CELLS = _tags("td th")
_CELL = "\x1f"  # stands between cells until white space is settled


def accepts(head: bytes, file: BinaryIO) -> bool:
    """True for a page that says it is one; a fragment of markup is text."""
    encoding = marked_encoding(head) or "latin-1"
    return _BEGINNING.match(head.decode(encoding, "ignore")) is not None


def read(file: BinaryIO, advance: Advance) -> Text:
    """The page's text, its title first; scripts, styles and navigation are left out."""
    file.seek(0)
    builder = TextBuilder()
    add_page(builder, file.read(), advance, with_title=True)
    return builder.build()


def add_page(
    builder: TextBuilder, data: bytes, advance: Advance | None = None, with_title: bool = False
) -> None:
    """Add the text of a page, given as it is stored, to ``builder``."""
    from lxml.etree import HTMLParser

    markup = _decode(data)
    if not markup or markup.isspace():
        return
    # Told of elements as they go by, it builds no tree: its time and memory do not depend on how
    # deep or how badly they are nested. Without huge_tree it would end at a depth of 256.
    parser = HTMLParser(target=_Page(builder, with_title), huge_tree=True)
    for start in range(0, len(markup), _SLICE):
        parser.feed(markup[start : start + _SLICE])
        if advance:
            advance(start / len(markup))
    parser.close()


def _decode(data: bytes) -> str:
    """As UTF-8 where it is that, else as it says, else by what its bytes look like."""
    said = _CHARSET.search(data, 0, _CHARSET_WITHIN)
    if said is None or marked_encoding(data):
        return decode(data)
    says = (said[1] or said[2]).decode("ascii", "replace").lower()
    for name in ("utf-8", *(_MEANT if says in _WESTERN else (says,))):
        try:
            if _ASCII.encode().decode(name) == _ASCII:
                return normalize_newlines(data.decode(name))
        except (LookupError, UnicodeError):  # unknown or no text encoding; wrong
            continue
    return decode(data)


class _Page:
    """Writes the blocks of a page to a builder as its elements go by; the parser ends each that
    begins, in the order that they stand in."""

    def __init__(self, builder: TextBuilder, with_title: bool) -> None:
        self._builder = builder
        self._with_title = with_title
        self._words: list[str] = []  # of the block at hand
        self._gap = PARAGRAPH
        self._bullet = False
        self._depth = 0
        self._dropped_from: int | None = None  # depth of the element that is being left out
        self._headings = self._verbatim = 0  # how many are open

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        self._settle(tag)
        self._depth += 1
        self._headings += tag in _HEADINGS
        self._verbatim += tag == "pre"
        if self._dropped_from is not None:
            return
        if _is_dropped(tag, attributes):
            self._dropped_from = self._depth
        elif tag in _CELLS:
            self._words.append(_CELL)
        elif tag == "li":
            self._bullet = True

    def end(self, tag: str) -> None:
        """An element ends."""
        if self._dropped_from is None:
            self._end_block(tag)
            if tag == "li":
                self._bullet = False
        elif self._dropped_from == self._depth:
            self._dropped_from = None
        self._depth -= 1
        self._headings -= tag in _HEADINGS
        self._verbatim -= tag == "pre"

    def data(self, text: str) -> None:
        """Text, in pieces of any size."""
        if self._dropped_from is None:
            self._words.append(text)

    def close(self) -> None:
        """The page ends."""
        self._flush()

    def _end_block(self, tag: str) -> None:
        if tag in _HEADINGS:
            self._flush(heading=True)
        elif tag == "title":
            if self._with_title:
                self._flush(heading=True)
            self._words.clear()
        self._settle(tag)

    def _flush(self, heading: bool = False) -> None:
        """End the block at hand."""
        text = "".join(self._words)
        self._words.clear()
        text = text.strip("\n") if self._verbatim else _settled(text)
        if not text or text.isspace() or (not self._verbatim and _NAVIGATION.fullmatch(text)):
            return
        if heading:
            self._builder.heading(_settled(text))
        else:
            self._builder.add("- " + text if self._bullet else text, self._gap)
        self._gap, self._bullet = PARAGRAPH if heading else LINE, False

    def _settle(self, tag: str) -> None:
        """End the block at hand where ``tag`` begins or ends one."""
        if tag in _LINES and self._headings:
            self._words.append(" ")  # a heading of two lines is one heading
        elif tag in _PARAGRAPHS:
            self._flush()
            if not self._bullet:  # the first paragraph of an item belongs to its bullet
                self._gap = PARAGRAPH
        elif tag in _LINES:
            self._flush()


def _is_dropped(tag: str, attributes: Mapping[str, str]) -> bool:
    """Whether an element is no part of what the page says."""
    if tag in _DROPPED or attributes.get("role") in _DROPPED_ROLES:
        return True
    return not _DROPPED_CLASSES.isdisjoint(attributes.get("class", "").split())


def _settled(text: str) -> str:
    """White space as a browser shows it, a tab between the cells of a row."""
    if _CELL not in text:
        return settled(text)
    before, *cells = map(settled, text.split(_CELL))
    return "\t".join([before, *cells] if before else cells).rstrip("\t")
