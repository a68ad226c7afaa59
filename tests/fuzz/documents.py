"""Documents of every format, mutated; and those that are made to take time or memory."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain, repeat

from document_bytes import docx_members, epub_members, pdf_bytes, word_paragraph, zip_bytes

from fuzz.law import MODEL, Case
from fuzz.mutate import mutated

_HTML = (
    b"<!DOCTYPE html><html><head><meta charset=utf-8><title>A book</title><style>p{}</style>"
    b"</head><body><h1>One</h1><p>Some <b>words</b> &amp; more<br>here.<table><tr><td>a<td>b"
    b"</table><ul><li>x<li>y</ul><pre>  code\n</pre><!-- no --><script>var a = 1 < 2</script>"
    b"<h2 id=two>Two</h2><div><p>Last &eacute;&#233;&#x1F600;</div></body></html>"
)
_TEXT = (
    "Ein Satz über Öl. Noch ein Satz, größer und schöner.\n\n"
    "# Heading\n\n漢字かな交じり文。これは日本語です。\n\n\tindented\r\nαβγ жзий שלום 😀👩‍👩‍👧\n"
)
_EPUB = epub_members({"a.xhtml": "<h1>A</h1><p>words</p>", "b.xhtml": "<p>more</p>"}, {})
_DOCX = docx_members(
    word_paragraph("A title", '<w:pStyle w:val="h"/>')
    + word_paragraph("Some words")
    + f"<w:tbl><w:tr><w:tc>{word_paragraph('cell')}</w:tc></w:tr></w:tbl>",
    '<w:style w:styleId="h"><w:name w:val="heading 1"/></w:style>',
)
_SEEDS: dict[str, tuple[bytes, ...]] = {
    "html": (_HTML,),
    "txt": tuple(
        _TEXT.encode(encoding, "ignore")
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "shift_jis", "gb18030")
    ),
    "pdf": (pdf_bytes(["Page one\nof a book", "Page two", ""]),),
    "epub": (zip_bytes(_EPUB),),
    "docx": (zip_bytes(_DOCX),),
}
_TOKENS: dict[str, tuple[bytes, ...]] = {
    "html": (
        *(b"<!--", b"-->", b"<!", b"<![CDATA[", b"<![1]>", b"</", b"<a", b"<a href='", b"&", b"&#"),
        *(b"<pre>", b"<table>", b"<td>", b"<script>", b"</script", b"<?", b"<svg>", b"<template>"),
        *(b"<meta charset=zlib>", b"<meta charset=utf-16>", b"<title>", b"<textarea>", b"<p>"),
        *(b"<div>", b"</div>", b"<b>", b"<select>", b"<plaintext>", b"<noscript>", b"="),
    ),
    "txt": (
        *("\ufeff".encode(), b"\xff\xfe", b"\0\0\xfe\xff", b"\x1b$B", b"\r", b" ", b"\n", b"a"),
        *("漢".encode(), "́".encode(), "👩‍".encode(), b"<html>", b"%PDF-", b"PK\x03\x04"),
    ),
    "pdf": (
        *(b"obj", b"endobj", b"stream", b"endstream", b"xref", b"trailer", b"startxref", b"%%EOF"),
        *(b"<<", b">>", b"[", b"]", b"(", b")", b"/Length", b"/Kids", b"/Parent", b"/FlateDecode"),
        *(b"/Encrypt 1 0 R", b"/ObjStm", b"BT", b"Tj", b"1 0 R", b"/Count 99999999", b"/Prev 0"),
    ),
    "epub": (b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04"),
    "docx": (b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04"),
}
_XML_TOKENS = (
    *(
        b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
        b"&lt;",
        b"&#0;",
        b"<w:p>",
        b"<w:t>",
        b"<w:tbl>",
        b"</w:p>",
    ),
    *(b"href='../../../etc/passwd'", b"encoding='zlib'", b"<a>", b"</a>", b"<![CDATA[", b"<?xml"),
)


def cases(rng: random.Random) -> Iterator[Case]:
    """Each document is asked about as a file, or is piped in."""
    made = sorted(_MADE)
    rng.shuffle(made)
    every = list(chain.from_iterable(_SEEDS.values()))
    for kind in chain.from_iterable(repeat(tuple(_SEEDS))):
        if made:
            name = made.pop()
            yield _case(f"made {name}", name, _MADE[name])
        data = rng.choice(_SEEDS[kind])
        if kind in ("epub", "docx") and rng.random() < 0.6:
            data = _mutated_inside(rng, _EPUB if kind == "epub" else _DOCX)
        else:
            data = mutated(rng, data, _TOKENS[kind], every)
        yield _case(f"mutated {kind}", f"a.{kind}", data, piped=rng.random() < 0.1)


def _case(name: str, path: str, data: bytes, *, piped: bool = False) -> Case:
    asked = ("ask", "--model", MODEL, "--max-tokens", "1", "--read", "recall", "--file")
    if piped:
        return Case(name, (*asked, "-", "why?"), stdin=data)
    return Case(name, (*asked, path, "why?"), {path: data})


def _mutated_inside(rng: random.Random, members: dict[str, str | bytes]) -> bytes:
    """An archive that is whole, one of whose members is not."""
    name = rng.choice(list(members))
    data = members[name]
    inside = mutated(rng, data if isinstance(data, bytes) else data.encode(), _XML_TOKENS)
    return zip_bytes({**members, name: inside})


def _with_page(body: str) -> bytes:
    return zip_bytes(epub_members({"a.xhtml": body}, {}))


_BIG = 300_000

_MADE: dict[str, bytes] = {
    **{
        f"{number}.html": b"<html><body>" + part * (_BIG // len(part))
        for number, part in enumerate(_TOKENS["html"])
    },
    "nested.html": b"<html>" + b"<div>" * 50_000 + b"deep" + b"</div>" * 50_000,
    "attributes.html": b"<html><a " + b"x=1 " * 100_000 + b">words",
    "nested.epub": _with_page("<div>" * 50_000 + "deep" + "</div>" * 50_000),
    "nested.docx": zip_bytes(docx_members("<w:tbl><w:tr><w:tc>" * 20_000 + "x")),
    "deep.docx": zip_bytes(
        docx_members(
            "<w:tbl><w:tr><w:tc>" * 5_000 + word_paragraph("x") + "</w:tc></w:tr></w:tbl>" * 5_000
        )
    ),
    "one line.txt": b"word " * 500_000,
    "one character.txt": "漢".encode() * 500_000,
    "marks.txt": "e\u0301".encode() * 200_000,
    "spaces.txt": b" " * 2_000_000 + b"x",
}
