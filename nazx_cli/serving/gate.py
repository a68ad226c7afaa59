"""What stands before every request: who may ask, from where, and how much may be sent."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nazx_cli.serving.errors import ApiError

_FOREIGN = ("cross-site", "same-site")  # where another page asks, as browsers tell of it


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``, a name or an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Gate:
    """Lets a request through to ``app`` that has the key (where there is one, and the path is not
    among the ``free`` ones) and no more than ``most(path)`` bytes.

    A page of another site is let do nothing: neither by its own address (``Origin``, or what a
    browser says of it) nor by a name that it has made to lead here, which is why a server without a
    key is asked by loopback names. It may lead to the page ``/``.
    """

    def __init__(
        self,
        app: ASGIApp,
        key: str | None,
        most: Callable[[str], int],
        free: Collection[str] = (),
    ) -> None:
        self._app, self._free = app, free
        self._key = None if key is None else _digest(key)
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or anything else that ASGI has."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, most = Headers(scope=scope), self._most(scope["path"])
        try:
            self._check(scope["path"], headers)
            sent = headers.get("content-length", "0")
            if not sent.isdigit() or int(sent) > most:
                raise _too_large(most)
        except ApiError as error:
            more: dict[str, Any] = {"www-authenticate": "Bearer"} if error.status == 401 else {}
            await JSONResponse(error.body, error.status, more)(scope, receive, send)
            return
        await self._app(scope, _bounded(receive, most), send)

    def _check(self, path: str, headers: Headers) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None:
            foreign = _host_of(origin) != host
        else:
            foreign = path != "/" and headers.get("sec-fetch-site") in _FOREIGN
        if foreign:
            raise ApiError(403, "requests from pages of other sites are not taken", None, "origin")
        if self._key is None:
            if not is_loopback(_name_of(host)):
                raise ApiError(403, "ask this server as localhost or 127.0.0.1", None, "host")
        elif path not in self._free:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            right = secrets.compare_digest(_digest(given.strip()), self._key)
            if scheme.lower() != "bearer" or not right:
                raise ApiError(401, "Incorrect API key provided.", None, "invalid_api_key")


def _host_of(origin: str) -> str:
    """Host and port of the page that sends a request; "" for what is no address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _name_of(host: str) -> str:
    """The ``Host`` of a request without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _digest(key: str) -> bytes:
    """Of one length, so that comparing takes one time."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _bounded(receive: Receive, most: int) -> Receive:
    """``receive`` that raises where more bytes come than were allowed, whatever was announced."""
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise _too_large(most)
        return message

    return bounded


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"a request here has at most {most:,} bytes", None, "too_large")
