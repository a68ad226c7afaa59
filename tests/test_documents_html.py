from __future__ import annotations

import time
from pathlib import Path

import pytest
from document_helpers import document_of, places_of, reason


def page(body: str, head: str = "") -> str:
    return f"<!DOCTYPE html><html><head>{head}</head><body>{body}</body></html>"


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_page_is_read_as_its_words() -> None:
    document = document_of(
        page(
            "<nav><ul><li>Home</li></ul></nav><script>if (a < b) {}</script>"
            "<h1>The  Pool</h1><p>Curiouser &amp;\ncuriouser!<br>she <b>cr</b>ied.</p>"
            "<ul><li>one<li><p>two</p></ul>"
            "<table>\n<tr> <td>a</td>\n<td> b </td></tr><tr><td></td><td>c</td></table>"
            "<pre>def f():\n    return 1\n</pre><noscript>Turn it on</noscript>",
            "<title>A tale</title><style>p { }</style>",
        )
    )
    assert document.format == "html"
    assert document.text == (
        "A tale\n\nThe Pool\n\nCuriouser & curiouser!\nshe cried.\n\n- one\n- two\n\n"
        "a\tb\n\tc\n\ndef f():\n    return 1\n"
    )
    assert places_of(document) == [("A tale", "A tale"), ("The Pool", "The Pool")]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("<nav><ul><li>a</li></ul></nav>words", "words"),
        ("<nav><table><tr><td>a<td>b</table></nav>words", "words"),
        ("<div role=navigation><h3>Navigation</h3><ul><li>a</ul></div>words", "words"),
        ("<form role=search>Go</form>words", "words"),
        ("<div class=navheader><table><tr><td>Prev<td>Next</table></div>words", "words"),
        ("<h2>One<a class='x headerlink' href='#one'>\u00b6</a></h2>words", "One\n\nwords"),
        ("<table><tr><td>[<a>&lt;&lt;</a>]<td>[<a>Up</a>]<td><td>[<a>Index</a>]</table>a", "a"),
        ("<p>[a] [b]</p><pre>[a] [b] [c]</pre>", "[a] [b]\n\n[a] [b] [c]"),
        ("<ul><li></li></ul>words", "words"),
        ("<div role=main class=header><ul><li>words</ul></div>", "- words"),
    ],
)
def test_what_leads_through_a_site_is_no_part_of_a_page(body: str, text: str) -> None:
    document = document_of(page(body))
    assert document.text == text + "\n"
    assert all("\u00b6" not in place.label for place in document.places)


def test_a_place_holds_until_the_next() -> None:
    document = document_of(page("<p>before</p><h2>I<br>One</h2><p>aa</p><h3>II</h3><p>bb</p>"))
    text = document.text
    assert document.place_at(text.index("before")) is None
    assert document.place_at(text.index("aa")) == "I One"
    assert document.place_at(len(text)) == "II"


def test_a_title_said_again_in_the_heading_stands_once() -> None:
    assert document_of(page("<h1>Tale</h1><p>x", "<title>Tale</title>")).text == "Tale\n\nx\n"


def test_a_long_heading_is_shortened_in_its_label_only() -> None:
    document = document_of(page(f"<h1>{'word ' * 50}</h1>"))
    assert len(document.places[0].label) <= 80
    assert document.text == "word " * 49 + "word\n"


@pytest.mark.parametrize(
    "body",
    ["<div><nav>menu</div><p>words", "<nav><nav>a</nav>b</nav><p>words", "</nav></p><p>words"],
)
def test_markup_that_is_not_closed_well_loses_no_words(body: str) -> None:
    assert document_of(page(body)).text.endswith("words\n")


def test_markup_that_is_part_of_a_text_stays() -> None:
    for text in ('<p align="center">\n\n# Readme\n', "<template>\n</template>\n", "# <html>\n"):
        document = document_of(text, "page.html")
        assert (document.format, document.text) == ("text", text)


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ('<meta charset="windows-1251">', "cp1251"),
        ('<meta http-equiv=Content-Type content="text/html; charset=koi8-r">', "koi8-r"),
        ("<meta charset=windows-1251>", "utf-8"),  # says what it is not
        ("<meta charset=no-such>", "cp1251"),
        ("", "utf-16"),
    ],
)
def test_a_page_is_decoded_as_it_says_or_as_it_is(head: str, encoding: str) -> None:
    words = "Все счастливые семьи похожи друг на друга. " * 5
    document = document_of(page(f"<p>{words}", head).encode(encoding))
    assert (document.format, document.text) == ("html", words.strip() + "\n")


@pytest.mark.parametrize("charset", ["iso-8859-1", "ISO-8859-1", "latin1", "us-ascii"])
def test_pages_that_say_latin_1_have_the_marks_of_windows(charset: str) -> None:
    words = "It’s “well” — known, größer, 5 €"
    head = f"<meta charset={charset}>"
    assert document_of(page(f"<p>{words}", head).encode("cp1252")).text == words + "\n"
    data = page("<p>Gr\xf6\x81er", head).encode("latin-1")  # a byte that Windows has not
    assert document_of(data).text == "Grö\x81er\n"


@pytest.mark.parametrize(
    "charset", ["zlib", "rot13", "unicode_escape", "punycode", "undefined", "idna"]
)
def test_a_charset_that_is_none_is_passed_over(charset: str) -> None:
    words = "Größer \\x41 "
    document = document_of(page(f"<p>{words * 40}", f"<meta charset={charset}>").encode("cp1252"))
    assert document.text.startswith(words)


@pytest.mark.parametrize(
    "part", ["<!--", "<a", "</", "<![1]>", "<![CDATA[", "<?", "<a href='", "&", "<div>", "<b><p>"]
)
def test_a_page_takes_time_and_memory_by_its_length_alone(part: str) -> None:
    begun = time.process_time()
    assert document_of(page("words<p>" + part * (300_000 // len(part)))).text.startswith("words")
    assert time.process_time() - begun < 5


def test_elements_nested_to_any_depth_are_read() -> None:
    text = document_of(page("<div>" * 20_000 + "deep" + "</div>" * 20_000 + "<p>after")).text
    assert text == "deep\n\nafter\n"


def test_comments_without_end_before_a_page_are_told_at_once() -> None:
    assert document_of("<!---->" * 1000).format == "text"
    assert document_of("<!-- a --><!-- b -->" + page("words")).format == "html"


def test_a_page_without_words_is_empty() -> None:
    assert reason(page("<script>x()</script>").encode()) == "is empty"
