"""The EPUB reader: a book's chapters in reading order, their titles as places."""

from __future__ import annotations

from typing import BinaryIO
from urllib.parse import unquote
from xml.parsers import expat

from nazx_cli.documents.document import Advance, Text, TextBuilder
from nazx_cli.documents.html import add_page
from nazx_cli.documents.zipped_xml import (
    Archive,
    XmlHandler,
    attributes_of,
    is_archive,
    member_beside,
    parse_xml,
)
from nazx_cli.errors import DocumentError

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html", "text/x-oeb1-document")


def accepts(head: bytes, file: BinaryIO) -> bool:
    """True for a ZIP file that says it is a book, or that has a book's container in it."""
    return is_archive(head[:128], file, b"mimetypeapplication/epub+zip", _CONTAINER)


def read(file: BinaryIO, advance: Advance) -> Text:
    """The book's text; DocumentError where it is damaged or locked."""
    archive = Archive(file, "EPUB")
    try:
        pages, titles = _contents(archive)
    except expat.ExpatError:
        raise archive.damaged() from None
    if not pages:
        raise archive.damaged()
    builder = TextBuilder()
    for number, name in enumerate(pages, start=1):
        builder.place(titles.get(name, ""))
        add_page(builder, archive.read(name))
        advance(number / len(pages))
    return builder.build()


def _contents(archive: Archive) -> tuple[list[str], dict[str, str]]:
    """Members with the book's pages, in reading order, and titles for those that have one."""
    roots = attributes_of(archive.read(_CONTAINER), "rootfile")
    if not roots:
        raise archive.damaged()
    package = member_beside("", unquote(roots[0].get("full-path", "")))
    data = archive.read(package)
    items, spine = attributes_of(data, "item"), attributes_of(data, "itemref")
    by_id = {item.get("id"): item for item in items}
    order = [by_id[ref.get("idref")] for ref in spine if ref.get("idref") in by_id]
    pages = [
        _page(package, item.get("href", "")) for item in order if item.get("media-type") in _PAGES
    ]
    locked = _locked_members(archive)
    if any(page in locked for page in pages):
        raise DocumentError("is locked to a shop's reader (DRM)", "give a copy without it")
    return [page for page in pages if page in archive], _titles(archive, package, items)


def _locked_members(archive: Archive) -> set[str]:
    """Members that are encrypted: in a book that anyone may read, none but fonts."""
    if _ENCRYPTION not in archive:
        return set()
    references = attributes_of(archive.read(_ENCRYPTION), "CipherReference")
    return {member_beside("", unquote(found.get("URI", ""))) for found in references}


def _titles(archive: Archive, package: str, items: list[dict[str, str]]) -> dict[str, str]:
    """Titles of pages from the table of contents, where there is one that can be read."""
    titles: dict[str, str] = {}
    for item in items:
        is_nav = "nav" in item.get("properties", "").split()
        if not is_nav and item.get("media-type") != "application/x-dtbncx+xml":
            continue
        base = member_beside(package, unquote(item.get("href", "")))
        if base not in archive:
            continue
        contents = _Contents()
        try:
            parse_xml(archive.read(base), contents)
        except expat.ExpatError:  # a book reads well without its table of contents
            continue
        for reference, title in contents.entries:
            titles.setdefault(_page(base, reference), title)
    return titles


def _page(base: str, reference: str) -> str:
    """The member that a link in ``base`` leads to, wherever in it."""
    return member_beside(base, unquote(reference.partition("#")[0]))


class _Contents(XmlHandler):
    """Collects (reference, title) from a table of contents: ``a`` links, or an NCX's points."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str]] = []
        self._reference: str | None = None
        self._words: list[str] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag in ("a", "text"):
            self._words.clear()
            self._reference = attributes.get("href")
        elif tag == "content":  # of the point whose text came before
            self._enter(attributes.get("src"))

    def end(self, tag: str) -> None:
        if tag == "a":
            self._enter(self._reference)

    def data(self, text: str) -> None:
        self._words.append(text)

    def _enter(self, reference: str | None) -> None:
        title = " ".join("".join(self._words).split())
        if reference and title:
            self.entries.append((reference, title))
