"""The page at ``/``: files of the package in ``web/``, sent as they are.

Its policy lets only those files run, and nothing that is made up in the page become markup: text of
models and documents is text, whatever it says.
"""

from __future__ import annotations

from importlib import resources
from pathlib import PurePath

from starlette.requests import Request
from starlette.responses import Response

from nazx_cli.serving.errors import ApiError

_FIRST = "index.html"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'"),
    *("connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    *("require-trusted-types-for 'script'", "trusted-types 'none'"),
)
_HEADERS = {
    "content-security-policy": "; ".join(_POLICY),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


class Page:
    """The page's files by the path that each is asked for: ``/``, ``/page/talk.js``, ..."""

    def __init__(self) -> None:
        folder = resources.files("nazx_cli") / "serving" / "web"
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        self._files = {_path(name): (name, data) for name, data in files.items()}

    @property
    def paths(self) -> frozenset[str]:
        """All of them."""
        return frozenset(self._files)

    async def send(self, request: Request) -> Response:
        """The file of the request's path."""
        try:
            name, data = self._files[request.url.path]
        except KeyError:
            raise ApiError(404, "the page has no such file", None, "unknown_url") from None
        return Response(data, headers=_HEADERS, media_type=_KINDS[PurePath(name).suffix])


def _path(name: str) -> str:
    return "/" if name == _FIRST else f"/page/{name}"
