"""The DOCX reader: paragraphs, tables and notes of a Word document, its headings as places."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.parsers import expat

from nazx_cli.documents.document import LINE, PARAGRAPH, Advance, Text, TextBuilder, settled
from nazx_cli.documents.zipped_xml import (
    Archive,
    XmlHandler,
    attributes_of,
    is_archive,
    member_beside,
    parse_xml,
)

_TYPES, _RELATIONS = "[Content_Types].xml", "_rels/.rels"
_USUAL = "word/document.xml"
_NOTES = ("footnotes.xml", "endnotes.xml")
_HEADING = re.compile(r"heading [1-9]$|title$", re.IGNORECASE)
_SIGNS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_BODY_LEVEL = 9  # an outline level that is none
_LEFT_OUT = frozenset(("moveFrom", "Fallback", "del"))  # said again elsewhere, or deleted


def accepts(head: bytes, file: BinaryIO) -> bool:
    """True for a ZIP file laid out as a Word document, whole or damaged."""
    return is_archive(head, file, _USUAL.encode(), _TYPES, _USUAL)


def read(file: BinaryIO, advance: Advance) -> Text:
    """The document's text; DocumentError where it is damaged."""
    archive = Archive(file, "Word")
    builder = TextBuilder()
    try:
        main = _main_part(archive)
        styles = _Styles()
        if (part := member_beside(main, "styles.xml")) in archive:
            parse_xml(archive.read(part), styles)
        parse_xml(archive.read(main), _Body(builder, styles.headings))
        advance(0.9)
        for name in _NOTES:
            if (part := member_beside(main, name)) in archive:
                builder.place("notes")
                parse_xml(archive.read(part), _Body(builder, ()))
    except expat.ExpatError:
        raise archive.damaged() from None
    return builder.build()


def _main_part(archive: Archive) -> str:
    main = None
    if _RELATIONS in archive:
        for relation in attributes_of(archive.read(_RELATIONS), "Relationship"):
            if relation.get("Type", "").endswith("/officeDocument"):
                main = relation.get("Target")
    return member_beside("", main or _USUAL)


class _Styles(XmlHandler):
    """Finds the ids of heading styles, which Word translates, by their names, which it does not."""

    def __init__(self) -> None:
        self._id = ""
        self.headings: set[str] = set()

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "style":
            self._id = attributes.get("styleId", "")
        elif (tag == "name" and _HEADING.match(attributes.get("val", ""))) or (
            tag == "outlineLvl" and _is_outline(attributes)
        ):
            self.headings.add(self._id)


@dataclass
class _Paragraph:
    words: list[str] = field(default_factory=list)
    heading: bool = False
    listed: bool = False


class _Body(XmlHandler):
    """Writes paragraphs and table rows to a builder as they go by.

    A paragraph can stand in a cell of a table that stands in a cell, or in a text box in a
    paragraph; what is inside goes out first.
    """

    def __init__(self, builder: TextBuilder, heading_styles: Collection[str]) -> None:
        self._builder = builder
        self._heading_styles = heading_styles
        self._open: list[str] = []
        self._left_out = 0  # depth of elements that are left out
        self._paragraphs: list[_Paragraph] = []
        self._rows: list[list[str]] = []
        self._cells: list[list[str]] = []
        self._gap = PARAGRAPH  # above the next row

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        inside = self._open[-1] if self._open else ""
        self._open.append(tag)
        self._left_out += tag in _LEFT_OUT
        if tag == "p":
            self._paragraphs.append(_Paragraph())
        elif tag == "tr":
            self._rows.append([])
        elif tag == "tc":
            self._cells.append([])
        elif inside == "r":
            self._say(_SIGNS.get(tag, ""))
        elif self._paragraphs:
            self._format(self._paragraphs[-1], tag, attributes)

    def end(self, tag: str) -> None:
        self._open.pop()
        self._left_out -= tag in _LEFT_OUT
        if tag == "p":
            self._end_paragraph(self._paragraphs.pop())
        elif tag == "tc" and self._rows:
            self._rows[-1].append(settled(" ".join(self._cells.pop())))
        elif tag == "tr":
            self._end_row("\t".join(self._rows.pop()).rstrip("\t"))
        elif tag == "tbl" and not self._cells:
            self._gap = PARAGRAPH

    def data(self, text: str) -> None:
        if self._open[-1] == "t":
            self._say(text)

    def _say(self, text: str) -> None:
        if self._paragraphs and not self._left_out:
            self._paragraphs[-1].words.append(text)

    def _format(self, paragraph: _Paragraph, tag: str, attributes: dict[str, str]) -> None:
        if tag == "pStyle":
            paragraph.heading |= attributes.get("val", "") in self._heading_styles
        elif tag == "outlineLvl":
            paragraph.heading |= _is_outline(attributes)
        elif tag == "numPr":
            paragraph.listed = True

    def _end_paragraph(self, paragraph: _Paragraph) -> None:
        text = "".join(paragraph.words).strip()
        if not text:
            return
        if self._cells:
            self._cells[-1].append(text)
        elif paragraph.heading:
            self._builder.heading(settled(text))
        else:
            self._builder.add("- " + text if paragraph.listed else text)

    def _end_row(self, text: str) -> None:
        if not text:
            return
        if self._cells:
            self._cells[-1].append(text)
        else:
            self._builder.add(text, self._gap)
            self._gap = LINE


def _is_outline(attributes: dict[str, str]) -> bool:
    level = attributes.get("val", "")
    return level.isdigit() and int(level) < _BODY_LEVEL
