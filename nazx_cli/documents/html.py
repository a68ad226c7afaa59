"""The HTML reader: the words of a page, its headings as places."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from html.parser import HTMLParser
from typing import BinaryIO

from nazx_cli.documents.document import LINE, PARAGRAPH, Advance, Text, TextBuilder
from nazx_cli.documents.text import decode, marked_encoding, normalize_newlines

_BEGINNING = re.compile(
    r"\ufeff?(?:\s|<!--.*?-->|<\?xml[^>]*>)*<(?:!doctype\s+html|(?:html|head|body)[\s>])",
    re.IGNORECASE | re.DOTALL,
)
_CHARSET = re.compile(
    rb"<\?xml[^>]+encoding=[\"']([\w-]+)|<meta[^>]+charset=[\"']?\s*([\w-]+)", re.IGNORECASE
)
_CHARSET_WITHIN = 4096  # bytes; the standard asks for 1024
_SLICE = 1 << 18  # characters parsed between two reports of progress


def _tags(names: str) -> frozenset[str]:
    return frozenset(names.split())


_DROPPED = _tags(
    "script style nav noscript template iframe object svg select textarea button audio video "
    "canvas annotation datalist"
)
_HEADINGS = _tags("h1 h2 h3 h4 h5 h6")
_PARAGRAPHS = _HEADINGS | _tags(
    "address article aside blockquote center dl details fieldset figure footer form header hgroup "
    "hr main menu ol p pre section table ul"
)
_LINES = _tags("body br caption dd div dt figcaption html legend li summary title tr")
_VOID = _tags("area base br col embed hr img input link meta param source track wbr")
_UNENDED = _tags("p li td th tr dt dd option thead tbody tfoot colgroup rt rp")
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
    markup = _decode(data)
    page = _Page(builder, with_title)
    for start in range(0, len(markup), _SLICE):
        page.feed(markup[start : start + _SLICE])
        if advance:
            advance(start / len(markup))
    page.close()
    page.flush()


def _decode(data: bytes) -> str:
    """As UTF-8 where it is that, else as it says, else by what its bytes look like."""
    said = _CHARSET.search(data, 0, _CHARSET_WITHIN)
    if said is None or marked_encoding(data):
        return decode(data)
    for name in ("utf-8", (said[1] or said[2]).decode("ascii", "replace")):
        if name.lower().startswith(("utf-16", "utf-32")):  # then it could not have been read here
            continue
        try:
            return normalize_newlines(codecs.decode(data, name))
        except (LookupError, UnicodeError, TypeError):  # unknown, wrong, no text encoding
            continue
    return decode(data)


class _Page(HTMLParser):
    """Writes the blocks of a page to a builder as its tags go by."""

    def __init__(self, builder: TextBuilder, with_title: bool) -> None:
        super().__init__(convert_charrefs=True)
        self._builder = builder
        self._with_title = with_title
        self._words: list[str] = []  # of the block at hand
        self._gap = PARAGRAPH
        self._bullet = False
        self._open: list[str] = []
        self._open_counts: Counter[str] = Counter()
        self._dropped_from: int | None = None  # depth of the element that is being left out

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._settle(tag)
        if tag not in _VOID and tag not in _UNENDED:
            self._open.append(tag)
            self._open_counts[tag] += 1
            if tag in _DROPPED and self._dropped_from is None:
                self._dropped_from = len(self._open)
        elif tag in ("td", "th"):
            self._words.append(_CELL)
        elif tag == "li":
            self._bullet = True

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._settle(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNENDED:
            self._settle(tag)
        elif self._open_counts[tag]:
            if self._dropped_from is None:
                if tag in _HEADINGS:
                    self.flush(heading=True)
                elif tag == "title":
                    if self._with_title:
                        self.flush(heading=True)
                    self._words.clear()
                self._settle(tag)
            self._close(tag)

    def handle_data(self, data: str) -> None:
        if self._dropped_from is None:
            self._words.append(data)

    def flush(self, heading: bool = False) -> None:
        """End the block at hand."""
        text = "".join(self._words)
        self._words.clear()
        text = text.strip("\n") if self._open_counts["pre"] else _settled(text)
        if not text or text.isspace():
            return
        if heading:
            self._builder.heading(_settled(text))
        else:
            self._builder.add("- " + text if self._bullet else text, self._gap)
        self._gap, self._bullet = PARAGRAPH if heading else LINE, False

    def _settle(self, tag: str) -> None:
        """End the block at hand where ``tag`` begins or ends one."""
        if tag in _LINES and any(self._open_counts[heading] for heading in _HEADINGS):
            self._words.append(" ")  # a heading of two lines is one heading
        elif tag in _PARAGRAPHS:
            self.flush()
            if not self._bullet:  # the first paragraph of an item belongs to its bullet
                self._gap = PARAGRAPH
        elif tag in _LINES:
            self.flush()

    def _close(self, tag: str) -> None:
        """Close ``tag``, and what was left open inside it."""
        while self._open:
            last = self._open.pop()
            self._open_counts[last] -= 1
            if last == tag:
                break
        if self._dropped_from is not None and len(self._open) < self._dropped_from:
            self._dropped_from = None


def _settled(text: str) -> str:
    """White space as a browser shows it, a tab between the cells of a row."""
    if _CELL not in text:
        return " ".join(text.split())
    before, *cells = (" ".join(cell.split()) for cell in text.split(_CELL))
    return "\t".join([before, *cells] if before else cells).rstrip("\t")
