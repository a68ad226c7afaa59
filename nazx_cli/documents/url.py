"""Documents from the web: fetched where a person names their address, and never otherwise.

What is fetched is bounded in bytes, as sent and as unpacked, and in time: for a connection, for
more bytes, and in all. Nothing is run, and no address inside of what comes back is followed.
"""

from __future__ import annotations

import io
import socket
import ssl
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from nazx_cli import __version__
from nazx_cli.errors import DocumentError
from nazx_cli.names import is_offline

WAIT, LONGEST = 15.0, 120.0
"""Seconds to wait for a connection or for more bytes, and for all of a document."""
MOST_BYTES = 100 << 20
"""Of a document, unpacked."""
_REDIRECTS = 5
_SCHEMES = ("http://", "https://")
_MOVED = (301, 302, 303, 307, 308)
_MARKS = "/%:=&?~#+!$,;'@()*[]"  # that stand for themselves in an address
_GZIP = 31  # what zlib takes for "with gzip's head and end"
_GZIP_BEGINS = b"\x1f"
_CHUNK = 1 << 16
_SHOWN = 60  # characters of a name
_LATER = "try again later, or save it yourself and give the file"
_SMALLER = "save it yourself, and give the part that you want"


def is_url(spec: str) -> bool:
    """Whether a ``--file`` value is the address of a document on the web."""
    return spec.lower().startswith(_SCHEMES)


def name_of(url: str) -> str:
    """What sources show for an address: host and path, the middle left out of a long one."""
    address = url.partition("://")[2].partition("#")[0].rstrip("/")
    host, slash, rest = address.partition("/")
    name = " ".join((host.rpartition("@")[2] + slash + rest).split())
    half = (_SHOWN - 1) // 2
    return name if len(name) <= _SHOWN else f"{name[:half]}…{name[-half:]}"


def fetch(url: str) -> BinaryIO:
    """The bytes at ``url``; a DocumentError's message continues the document's name."""
    if is_offline():
        raise DocumentError("is on the web, and NazX is offline", "leave --offline out")
    with _Deadline() as deadline, _told(deadline):
        for _ in range(_REDIRECTS + 1):
            answer = _answer(url, deadline)
            if isinstance(answer, HTTPResponse):
                with answer:
                    return io.BytesIO(_body(answer, deadline))
            if not is_url(answer) or urlsplit(url).scheme > urlsplit(answer).scheme:
                raise DocumentError("leads to what is no address of the web", _LATER)
            url = answer
    raise DocumentError(f"leads on to other addresses more than {_REDIRECTS} times", _LATER)


class _Deadline:
    """Shuts the connections down that are still open when the time is over: a server that sends a
    byte now and then never meets a limit on one read."""

    def __init__(self) -> None:
        self.is_over = False
        self._open: list[socket.socket] = []
        self._timer = threading.Timer(LONGEST, self._end)
        self._timer.daemon = True

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def watch(self, connection: HTTPConnection) -> None:
        """Have a connection that was just made end with the time."""
        self._open.append(connection.sock)
        if self.is_over:
            self._end()

    def _end(self) -> None:
        self.is_over = True
        for sock in self._open:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:  # closed already
                continue


@contextmanager
def _told(deadline: _Deadline) -> Iterator[None]:
    """What goes wrong on the way as a DocumentError."""
    try:
        yield
    except DocumentError:
        if deadline.is_over:
            raise _too_slow() from None
        raise
    except (HTTPException, OSError, ValueError, OverflowError) as error:  # the last of a length
        if deadline.is_over:
            raise _too_slow() from None
        raise _unreachable(error) from None


def _too_slow() -> DocumentError:
    return DocumentError(f"did not come within {LONGEST:g} seconds", _LATER)


def _unreachable(error: Exception) -> DocumentError:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return DocumentError(f"sent nothing for {WAIT:g} seconds", _LATER)
    if isinstance(reason, socket.gaierror):
        return DocumentError("is on a host that cannot be found", "check the address")
    if isinstance(reason, ssl.SSLError):
        return DocumentError(
            f"cannot be had safely: {reason.reason or 'no TLS'}", "check the address"
        )
    if isinstance(reason, OSError):
        return DocumentError(f"cannot be reached: {reason.strerror or reason}", _LATER)
    if isinstance(reason, ValueError) or "URL" in type(reason).__name__:
        return DocumentError("is no address that can be asked", "check the address")
    return DocumentError("is answered by what is no web server, or not whole", _LATER)


def _answer(url: str, deadline: _Deadline) -> HTTPResponse | str:
    """The answer for ``url``, or the address that it leads to."""
    parts = urlsplit(url)
    if not parts.hostname or "@" in parts.netloc:
        raise DocumentError("is no address without a password", "fetch it yourself, give the file")
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    asked = parts._replace(
        netloc=host,
        path=quote(parts.path, _MARKS) or "/",
        query=quote(parts.query, _MARKS),
        fragment="",
    ).geturl()
    headers = {"User-Agent": f"nazx/{__version__}", "Accept-Encoding": "gzip, identity"}
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        _Http(deadline),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    try:
        response: HTTPResponse = opener.open(Request(asked, headers=headers), timeout=WAIT)
        return response
    except HTTPError as error:
        error.close()
        location = error.headers.get("Location")
        if error.code in _MOVED and location:
            return urljoin(asked, quote(location, safe=_MARKS, encoding="latin-1"))
        raise DocumentError(
            f"is not there: the server says {error.code}", "check the address"
        ) from None


class _Http(HTTPHandler):
    """Opens addresses of both schemes."""

    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_watched(HTTPConnection, self._deadline), req)

    https_request = HTTPHandler.http_request

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_watched(HTTPSConnection, self._deadline), req)


def _watched(kind: type[HTTPConnection], deadline: _Deadline) -> Any:
    class Watched(kind):  # type: ignore[valid-type, misc]
        def connect(self) -> None:
            super().connect()
            deadline.watch(self)

    return Watched


def _body(response: HTTPResponse, deadline: _Deadline) -> bytes:
    """All that a server sends, unpacked."""
    if (response.length or 0) > MOST_BYTES:
        raise _too_big()
    packed = _packed(response.headers.get("Content-Encoding", ""))
    body = bytearray()
    come = 0
    while chunk := response.read1(_CHUNK):
        come += len(chunk)
        body += packed.unpack(chunk, MOST_BYTES + 1 - len(body)) if packed else chunk
        if max(come, len(body)) > MOST_BYTES:
            raise _too_big()
    if response.length or deadline.is_over or (packed and not packed.is_whole):
        raise _cut_off()
    return bytes(body)


class _Gzip:
    """Turns the next bytes sent into at most so many of the document, which may be packed in
    several parts."""

    def __init__(self) -> None:
        self._part = zlib.decompressobj(wbits=_GZIP)
        self.is_whole = False

    def unpack(self, data: bytes, most: int) -> bytes:
        unpacked = bytearray()
        try:
            while data and len(unpacked) < most:
                if self._part.eof:
                    if not data.startswith(_GZIP_BEGINS):
                        break  # what fills up a block, say
                    self._part = zlib.decompressobj(wbits=_GZIP)
                unpacked += self._part.decompress(data, most - len(unpacked))
                data = self._part.unused_data
        except zlib.error:
            raise _cut_off() from None
        self.is_whole = self._part.eof
        return bytes(unpacked)


def _packed(encoding: str) -> _Gzip | None:
    """What unpacks a ``Content-Encoding``; None for what is sent as it is. Some servers say there
    how characters are written."""
    name = encoding.strip().lower()
    if name in ("gzip", "x-gzip"):
        return _Gzip()
    if name in ("", "identity", "none", "binary", "utf-8", "utf8"):
        return None
    raise DocumentError("is packed in a way that was not asked for", _LATER)


def _cut_off() -> DocumentError:
    return DocumentError("did not come whole", _LATER)


def _too_big() -> DocumentError:
    return DocumentError(f"is bigger than {MOST_BYTES >> 20} MiB", _SMALLER)
