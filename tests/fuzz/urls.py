"""What a web server may answer: mutated answers, redirects and encodings, from loopback."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Iterator
from itertools import count

from web_server import http, serving

from fuzz.law import MODEL, Case
from fuzz.mutate import mutated

_PAGE = b"<!doctype html><html><title>A tale</title><p>words on a page</html>"
_CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwords\r\n4\r\n and\r\n0\r\n\r\n"
)
_SEEDS = (
    http(_PAGE, Content_Type="text/html; charset=utf-8"),
    http(gzip.compress(_PAGE), Content_Encoding="gzip"),
    http(zlib.compress(bytes(1 << 22)), Content_Encoding="deflate"),
    http(b"", "302 Found", Location="/page"),
    http(b"", "301 Moved", Location="http://127.0.0.1:1/x"),
    _CHUNKED,
)
_TOKENS = (
    *(
        b"\r\n",
        b": ",
        b"HTTP/1.1 ",
        b"100 Continue\r\n\r\n",
        b"Content-Length: 5\r\n",
        b"0\r\n\r\n",
    ),
    *(b"Location: /page\r\n", b"Location: file:///etc/passwd\r\n", b"Location: http://[\r\n"),
    *(b"Content-Encoding: gzip\r\n", b"Transfer-Encoding: chunked\r\n", b"ffffffffff\r\n", b"-1"),
    *(b"X: " + b"a" * 70_000 + b"\r\n", b"X: y\r\n" * 200, b"\x1f\x8b", b"206 Partial", b"304 Not"),
)
_ADDRESSES = (
    *("http://", "http://\x1b[2J/", "https://[::1", "http://127.0.0.1:99999/", "HTTP://\u202e/"),
    *(
        "http://a" + ".a" * 5000,
        "http://ü\udc80/",
        "http://127.0.0.1:1/\r\nHost: x",
        "http://@:/?#",
    ),
)


def cases(rng: random.Random) -> Iterator[Case]:
    """Each address is asked for by ``--file``; the server lasts as long as the cases do."""
    answers = {"page": http(_PAGE)}
    with serving(answers) as address:
        for number in count():
            answers["x"] = mutated(rng, rng.choice(_SEEDS), _TOKENS, _SEEDS)
            named = rng.choice(_ADDRESSES) if rng.random() < 0.15 else f"{address}x"
            asked = ("vram-estimate", "--model", MODEL, "--file", named)
            yield Case(f"answer {number}", asked, {"answer": answers["x"]}, env={"no_proxy": "*"})
