"""Documents named by their address on the web, from a server on loopback."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pytest
from cli_helpers import run_nazx
from document_bytes import pdf_bytes
from document_files import failure, write
from web_server import http, serving

from nazx_cli.documents import url
from nazx_cli.documents.gather import gather

PAGE = b"<!doctype html><title>A tale</title><p>words on a page"


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in repeat(None):
        connection.sendall(b"a")
        time.sleep(0.05)


def drip_headers(connection: socket.socket) -> None:
    for _ in repeat(None):
        connection.sendall(b"H")
        time.sleep(0.05)


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in repeat(None):
        connection.sendall(b"words " * 10_000)


def silent(connection: socket.socket) -> None:
    time.sleep(5)


def moved(to: str, status: str = "302 Found") -> bytes:
    return http(b"", status, Location=to)


ANSWERS = {
    "page": http(PAGE, Content_Type="application/pdf"),  # what is in it decides
    "paper.pdf": http(pdf_bytes(["words on paper"]), Content_Type="text/html"),
    "notes": http("größer\n".encode("cp1252") * 20, Content_Type="text/plain"),
    "packed": http(gzip.compress(PAGE), Content_Encoding="gzip"),
    "parts": http(gzip.compress(PAGE[:20]) + gzip.compress(PAGE[20:]), Content_Encoding="gzip"),
    "filled": http(gzip.compress(PAGE) + bytes(100), Content_Encoding="gzip"),
    "half": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(PAGE)[:-4],
    "charset": http(PAGE, Content_Encoding="UTF-8"),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwords\r\n0\r\n\r\n",
    "moved": moved("/moved-again"),
    "moved-again": moved("page", "308 Permanent Redirect"),
    "ü?b=c d": http(PAGE),
    "%C3%BC?b=c%20d": http(PAGE),
    "moved-far": moved("/ü?b=c d"),
    "round": moved("round"),
    "to-file": moved("file:///etc/hostname"),
    "to-ftp": moved("ftp://127.0.0.1/x"),
    "short": http(b"words", Content_Length="500"),
    "broken-chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nwords",
    "chunk-below-zero": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"-8%015x\r\n" % 1,
    "no-http": b"\x1b[2Jwords\r\n\r\n",
    "nothing": b"",
    "empty": http(b""),
    "binary": http(bytes(range(256)) * 8),
    "big": http(b"", Content_Length=str(10**13)),
    "bomb": http(gzip.compress(bytes(4 << 20)), Content_Encoding="gzip"),
    "no-gzip": http(b"words", Content_Encoding="gzip"),
    "brotli": http(b"words", Content_Encoding="br"),
    "broken": http(b"", "500 \x1b[2J"),
    "drip": drip,
    "drip-headers": drip_headers,
    "endless": endless,
    "silent": silent,
}


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(url, "WAIT", 0.5)
    monkeypatch.setattr(url, "LONGEST", 1.5)
    monkeypatch.setattr(url, "MOST_BYTES", 2 << 20)
    with serving(ANSWERS) as address:
        yield address


@pytest.mark.parametrize(
    ("path", "kind", "text"),
    [
        ("page", "html", "A tale\n\nwords on a page\n"),
        ("paper.pdf", "pdf", "words on paper\n"),
        ("notes", "text", "größer\n" * 20),
        ("packed", "html", "A tale\n\nwords on a page\n"),
        ("parts", "html", "A tale\n\nwords on a page\n"),
        ("filled", "html", "A tale\n\nwords on a page\n"),
        ("charset", "html", "A tale\n\nwords on a page\n"),
        ("chunked", "text", "words"),
        ("moved", "html", "A tale\n\nwords on a page\n"),
        ("moved-far", "html", "A tale\n\nwords on a page\n"),
        ("ü?b=c d#part", "html", "A tale\n\nwords on a page\n"),
    ],
)
def test_a_document_on_the_web_is_read_as_what_it_is(
    web: str, path: str, kind: str, text: str
) -> None:
    (document,) = gather([web + path]).documents
    assert (document.format, document.text, document.origin) == (kind, text, None)
    assert document.name == (web + path).removeprefix("http://").removesuffix("#part")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("absent", "the server says 404"),
        ("broken", "the server says 500"),
        ("round", "leads on to other addresses"),
        ("to-file", "no address of the web"),
        ("to-ftp", "no address of the web"),
        ("short", "did not come whole"),
        ("half", "did not come whole"),
        ("broken-chunks", "not whole"),
        ("chunk-below-zero", "not whole"),
        ("no-http", "no web server"),
        ("nothing", "cannot be reached"),
        ("empty", "is empty"),
        ("binary", "is a binary file"),
        ("big", "bigger than 2 MiB"),
        ("bomb", "bigger than 2 MiB"),
        ("endless", "bigger than 2 MiB"),
        ("no-gzip", "did not come whole"),
        ("brotli", "packed"),
        ("drip", "did not come within"),
        ("drip-headers", "did not come within"),
        ("silent", "sent nothing for"),
    ],
)
def test_what_cannot_be_had_is_told(web: str, path: str, told: str) -> None:
    begun = time.monotonic()
    assert told in failure(web + path).message
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://127.0.0.1:1/x", "cannot be reached"),
        ("http://", "is no address"),
        ("http://[::1/x", "is no address"),
        ("http://127.0.0.1:x/", "is no address"),
        ("http://me:secret@127.0.0.1/x", "is no address without a password"),
        ("http://127.0.0.1:1/a\nb\x1b", "cannot be reached"),
    ],
)
@pytest.mark.usefixtures("web")
def test_an_address_that_leads_nowhere_is_told(address: str, told: str) -> None:
    error = failure(address)
    assert told in error.message
    assert "secret" not in str(error)


def test_a_server_without_tls_is_told(web: str) -> None:
    assert "safely" in failure(web.replace("http", "https") + "page").message


def test_offline_nothing_is_asked(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # so that it is put back, too
    asked = ("ask", "--model", "none", "--file", web + "page", "--offline", "why?")
    _, stderr, code = run_nazx(*asked)
    assert code == 1
    assert "offline" in stderr


def test_an_address_inside_a_document_is_not_followed(web: str) -> None:
    write("a.html", f'<html><p>words<img src="{web}page"><a href="{web}page">{web}page</a>')
    (document,) = gather(["a.html"]).documents
    assert "A tale" not in document.text


def test_a_source_shows_a_long_address_shortened() -> None:
    name = url.name_of("https://me:pw@example.org/" + "a" * 200 + "/page.html#x")
    assert name.startswith("example.org/aaa")
    assert name.endswith("aa/page.html")
    assert len(name) <= 60
