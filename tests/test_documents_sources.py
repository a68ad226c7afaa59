from __future__ import annotations

import pytest

from nazx_cli.reading.passages import Passage, source_line, source_record


def passage(document: str, first: str | None, last: str | None) -> Passage:
    return Passage(document, 10, 12, 0, 9, "Curiouser and curiouser!", first, last)


@pytest.mark.parametrize(
    ("document", "first", "last", "shown"),
    [
        ("alice.txt", None, None, "alice.txt:10-12"),
        ("book.pdf", "page 12", "page 12", "book.pdf, page 12"),
        ("book.pdf", "page 12", "page 13", "book.pdf, pages 12-13"),
        (
            "b.epub",
            "II. The Pool of Tears",
            "II. The Pool of Tears",
            "b.epub, II. The Pool of Tears",
        ),
        ("b.epub", "I. Down", "II. The Pool", "b.epub, I. Down – II. The Pool"),
        ("page.html", None, "The Pool", "page.html, The Pool"),
    ],
)
def test_a_source_names_the_page_or_chapter_where_there_is_one(
    document: str, first: str | None, last: str | None, shown: str
) -> None:
    source = passage(document, first, last)
    assert source_line(source) == f"{shown}  “Curiouser and curiouser!”"
    record = source_record(source)
    assert (record["first_place"], record["last_place"]) == (first, last)
    assert (record["first_line"], record["last_line"]) == (10, 12)
