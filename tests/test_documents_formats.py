from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from document_bytes import docx_members, epub_members, pdf_bytes, word_paragraph, zip_bytes
from document_helpers import document_of, places_of, reason

from nazx_cli.documents import zipped_xml as archive
from nazx_cli.errors import DocumentError


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# PDF


def test_the_pages_of_a_pdf_are_its_places() -> None:
    pages = ["Down the\nRabbit-Hole", "", "The Pool of Tears"]
    document = document_of(pdf_bytes(pages), "book.txt")
    assert document.format == "pdf"
    assert document.text == "Down the\nRabbit-Hole\n\nThe Pool of Tears\n"
    assert places_of(document) == [("page 1", "Down the"), ("page 3", "The Pool of Tears")]


def test_a_pdf_of_pictures_says_that_it_has_no_text() -> None:
    assert "no text" in reason(pdf_bytes(["", ""]))


def encrypted(password: str) -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf_bytes(["secret words"]))))
    writer.encrypt(password, "owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_a_pdf_with_a_password_is_refused_and_one_with_an_empty_one_is_read() -> None:
    assert reason(encrypted("tea")) == "is encrypted"
    assert document_of(encrypted("")).text == "secret words\n"


def test_a_page_that_cannot_be_read_is_named_in_the_text() -> None:
    before, _, after = pdf_bytes(["one", "two"]).rpartition(b"/FlateDecode")
    broken = before + b"/FlateXecode" + after
    document = document_of(broken)
    assert document.text.startswith("one\n\n[page 2 ")
    assert [p.label for p in document.places] == ["page 1", "page 2"]


# EPUB


ALICE = {
    "cover.xhtml": "<p>A cover</p>",
    "text/one%20a.xhtml": "<h2>I.<br/>Down</h2><p>Alice was beginning</p>",
    "text/two.xhtml": "<p>Curiouser</p>",
    "text/more.xhtml": "<p>and curiouser</p>",
}


def test_the_chapters_of_a_book_come_in_reading_order_with_their_titles() -> None:
    titles = {"text/one%20a.xhtml": "One", "text/two.xhtml#top": "II. The Pool of Tears"}
    document = document_of(zip_bytes(epub_members(ALICE, titles)))
    assert document.format == "epub"
    assert document.text == (
        "A cover\n\nI. Down\n\nAlice was beginning\n\nCuriouser\n\nand curiouser\n"
    )
    assert places_of(document) == [
        ("I. Down", "I. Down"),
        ("II. The Pool of Tears", "Curiouser"),
    ]
    assert document.place_at(document.text.index("and")) == "II. The Pool of Tears"


def test_titles_are_taken_from_a_navigation_page_too() -> None:
    members = epub_members(
        {"nav.xhtml": "<nav><a href='b.xhtml'>Two</a></nav>", "b.xhtml": "b"}, {}
    )
    package = str(members["OEBPS/book.opf"])
    members["OEBPS/book.opf"] = package.replace('href="nav', 'properties="nav" href="nav')
    assert places_of(document_of(zip_bytes(members))) == [("Two", "b")]


def test_a_book_without_a_readable_table_of_contents_is_read() -> None:
    members = epub_members({"a.xhtml": "words"}, {}) | {"OEBPS/toc.ncx": "<ncx>"}
    del members["mimetype"]
    assert document_of(zip_bytes(members)).text == "words\n"


def test_names_that_climb_out_of_a_book_reach_nothing() -> None:
    Path("secret.xhtml").write_text("secret")
    members = epub_members({"a.xhtml": "words"}, {})
    package = str(members["OEBPS/book.opf"])
    members["OEBPS/book.opf"] = package.replace('"a.xhtml"', '"../../../secret.xhtml"')
    assert reason(zip_bytes(members)) == "is a damaged EPUB file"
    members["secret.xhtml"] = "inside"
    assert document_of(zip_bytes(members)).text == "inside\n"


def test_a_locked_book_is_refused_and_one_with_hidden_fonts_is_read() -> None:
    members = epub_members({"a.xhtml": "words"}, {})
    for locked in ("OEBPS/a.xhtml", "OEBPS/font.otf"):
        members["META-INF/encryption.xml"] = f"<e><CipherReference URI='{locked}'/></e>"
        if locked.endswith("otf"):
            assert document_of(zip_bytes(members)).text == "words\n"
        else:
            assert "locked" in reason(zip_bytes(members))


@pytest.mark.parametrize("encoding", ["gb2312", "GBK", "Shift_JIS", "utf8mb4"])
def test_xml_in_any_encoding_that_is_known_is_read(encoding: str) -> None:
    said = f'<?xml version="1.0" encoding="{encoding}"?>'
    members = epub_members({"a.xhtml": "words"}, {"a.xhtml": "一二三"})
    for name in ("OEBPS/book.opf", "OEBPS/toc.ncx"):
        text = said + str(members[name])
        members[name] = text.encode("gbk" if encoding == "utf8mb4" else encoding)
    if encoding == "utf8mb4":  # which there is none of
        assert reason(zip_bytes(members)) == "is a damaged EPUB file"
    else:
        assert places_of(document_of(zip_bytes(members))) == [("一二三", "words")]
    word = docx_members(word_paragraph("一二三"))
    word["word/document.xml"] = (said + str(word["word/document.xml"])).encode("gbk")
    if encoding.startswith("G"):
        assert document_of(zip_bytes(word)).text == "一二三\n"


def test_links_that_are_no_addresses_lead_nowhere() -> None:
    members = epub_members({"a.xhtml": "words"}, {"http://[x#y": "Nowhere", "a.xhtml": "One"})
    assert places_of(document_of(zip_bytes(members))) == [("One", "words")]


# DOCX


def test_a_word_document_is_read_with_its_headings_and_tables() -> None:
    cell = "<w:tc>{}</w:tc>".format
    row = "<w:tr>{}</w:tr>".format
    words = word_paragraph
    document = document_of(
        zip_bytes(
            docx_members(
                words("Überblick", '<w:pStyle w:val="berschrift1"/>')
                + words("Some", '<w:tabs><w:tab w:val="left"/></w:tabs>')
                + words("item", "<w:numPr/>")
                + "<w:p><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r>"
                "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>"
                + "<w:tbl>"
                + row(cell(words("1")) + cell(words("x") + words("y")))
                + row(cell(words("2")) + cell(words("z")))
                + "</w:tbl>"
                + words("Part", '<w:outlineLvl w:val="1"/>')
                + words("end"),
                '<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>',
            )
        )
    )
    assert document.format == "docx"
    assert document.text == (
        "Überblick\n\nSome\n\n- item\n\na\tb\nc\n\n1\tx y\n2\tz\n\nPart\n\nend\n"
    )
    assert places_of(document) == [("Überblick", "Überblick"), ("Part", "Part")]


def test_a_text_box_is_read_once_and_footnotes_at_the_end() -> None:
    box = word_paragraph("boxed")
    members = docx_members(
        f"<w:p><w:r><w:t>around</w:t><w:Choice>{box}</w:Choice><w:Fallback>{box}</w:Fallback>"
        "</w:r></w:p>"
    )
    members["word/footnotes.xml"] = f"<w:f xmlns:w='x'>{word_paragraph('a note')}</w:f>"
    document = document_of(zip_bytes(members))
    assert document.text == "boxed\n\naround\n\na note\n"
    assert places_of(document) == [("notes", "a note")]


# What is wrong with a file


def test_a_zip_file_that_is_no_document_is_a_binary_file() -> None:
    assert reason(zip_bytes({"a.txt": "words"})) == "is a binary file"


MAKERS = {
    "PDF": lambda: pdf_bytes(["some words"] * 3),
    "EPUB": lambda: zip_bytes(epub_members(ALICE, {"cover.xhtml": "Cover"})),
    "Word": lambda: zip_bytes(docx_members(word_paragraph("some words") * 30)),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_that_was_cut_short_is_damaged(kind: str) -> None:
    data = MAKERS[kind]()
    assert reason(data[:-100] if kind != "PDF" else data[:40]) == f"is a damaged {kind} file"


@pytest.mark.parametrize("kind", MAKERS)
def test_any_damage_ends_in_text_or_in_a_reason(kind: str) -> None:
    rng = random.Random(11)
    whole = MAKERS[kind]()
    outcomes = set()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 12)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            outcomes.add(bool(document_of(bytes(data)).text))
        except DocumentError:
            outcomes.add(False)
    assert outcomes == {True, False}


@pytest.mark.parametrize("kind", ["EPUB", "Word"])
def test_a_file_that_unpacks_to_far_too_much_is_refused(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "UNPACKED_LIMIT", 2 << 20)
    text = "a " * (2 << 20)
    bomb = {
        "EPUB": lambda: zip_bytes(epub_members({"a.xhtml": text}, {})),
        "Word": lambda: zip_bytes(docx_members(word_paragraph(text))),
    }[kind]()
    assert len(bomb) < 1 << 16
    assert reason(bomb) == "unpacks to more than 2 MiB"


def test_a_small_file_may_unpack_to_little() -> None:
    text = "a " * (9 << 20)
    packed = zip_bytes(docx_members(word_paragraph(text)))
    assert len(packed) < 1 << 16
    assert reason(packed) == "unpacks to more than 16 MiB"


@pytest.mark.parametrize(
    "made",
    [
        lambda deep: docx_members("<w:tc>" * deep + "x" + "</w:tc>" * deep),
        lambda deep: {
            **epub_members({"a.xhtml": "x"}, {}),
            "META-INF/container.xml": "<a>" * deep + "x" + "</a>" * deep,
        },
    ],
)
def test_xml_nested_without_end_is_refused(made: Callable[[int], dict[str, str | bytes]]) -> None:
    assert reason(zip_bytes(made(5000))) == "has more than 256 elements in each other"


ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY b SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize("declared", [ENTITIES, OUTSIDE])
@pytest.mark.parametrize(
    "members",
    [
        lambda: (docx_members(word_paragraph("&b;")), "word/document.xml"),
        lambda: (epub_members({"a.xhtml": "x"}, {"a.xhtml": "&b;"}), "OEBPS/toc.ncx"),
        lambda: (epub_members({"a.xhtml": "x"}, {}), "META-INF/container.xml"),
    ],
)
def test_xml_that_declares_entities_is_refused(
    declared: str, members: Callable[[], tuple[dict[str, str | bytes], str]]
) -> None:
    files, name = members()
    files[name] = declared + str(files[name]).rpartition('ncx.dtd">')[2]
    assert reason(zip_bytes(files)) == "declares entities in its XML"


def test_a_member_with_a_password_is_refused() -> None:
    data = bytearray(zip_bytes(docx_members(word_paragraph("x"))))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := data.find(signature, start)) >= 0:
            data[start + at] |= 1
            start += 4
    assert reason(bytes(data)) == "is protected by a password"
