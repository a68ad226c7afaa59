"""A small Hub on loopback that speaks what the real ``huggingface_hub`` client asks for.

Used through ``HF_ENDPOINT``: the client under test is the real one.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

from fake_uploads import UploadHandler, Uploads

LISTING = "the listing"
API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?")
TREE = re.compile(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)")
FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class FakeRepo:
    """Files by name, and how the repository misbehaves."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    token: str | None = None  # what a reader has to send
    gated: bool = False
    private: bool = False
    cut: dict[str, int] = field(default_factory=dict)  # bytes of a file after which it hangs up
    altered: dict[str, bytes] = field(default_factory=dict)  # bodies sent in place of the listed
    held: dict[str, int] = field(default_factory=dict)  # bytes of a file after which it waits
    dripping: set[str] = field(default_factory=set)  # files, or LISTING, sent a byte at a time
    listing: bytes | None = None  # sent in place of the files' listing

    def sha256(self, name: str) -> str:
        return hashlib.sha256(self.files[name]).hexdigest()

    def git_hash(self, name: str) -> str:
        data = self.files[name]
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def etag(self, name: str) -> str:
        return self.sha256(name) if self.is_large(name) else self.git_hash(name)

    def is_large(self, name: str) -> bool:
        return name.endswith((".safetensors", ".bin"))


class FakeHub:
    """Serves ``repos`` while used as a context manager; ``requests`` is what was asked.

    ``ranges`` are the files and first bytes of what was asked for in part. A body that is
    ``held`` sets ``holding`` and goes on after ``release``. ``portal`` is a page that is answered
    to whatever is asked, as a network does where one has to log in first. ``uploads`` is who may
    write, and what was sent.
    """

    def __init__(self, repos: dict[str, FakeRepo]) -> None:
        self.repos = repos
        self.portal: bytes | None = None
        self.uploads = Uploads()
        self.requests: list[str] = []
        self.ranges: list[tuple[str, int]] = []
        self.holding = threading.Event()
        self.release = threading.Event()
        hub = self

        class Handler(_Handler):
            def __init__(self, *args: object) -> None:
                self.hub = hub
                super().__init__(*args)  # type: ignore[arg-type]

        class Server(ThreadingHTTPServer):
            def handle_error(self, *args: object) -> None:
                """A client that was stopped is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def make_repo(self, name: str, *, private: bool, token: str) -> None:
        """As the Hub makes one: with a file of its own."""
        reader = token if private else None
        files = {".gitattributes": b"*.safetensors filter=lfs\n"}
        self.repos[name] = FakeRepo(files, private=private, token=reader)

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(UploadHandler, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.portal is not None:
            return self._send(200, {"Content-Type": "text/html"}, self.hub.portal, with_body)
        if path == "/":
            return self._send(200, {}, b"", with_body)
        if path == "/api/whoami-v2":
            return self.who_am_i()
        for pattern, reply in ((TREE, self._tree), (API, self._info), (FILE, self._file)):
            match = pattern.fullmatch(path)
            if match:
                repo = self._repo(match[1], match[2], with_body)
                if repo is not None:
                    reply(match, repo, with_body)
                return None
        return self._fail(404, "", "no such page", with_body)

    def _repo(self, name: str, revision: str | None, with_body: bool) -> FakeRepo | None:
        repo = self.hub.repos.get(name)
        allowed = repo is None or repo.token is None or self._sent_token(repo.token)
        if repo is None:  # the Hub does not tell strangers which private names exist
            self._fail(401, "RepoNotFound", "Invalid username or password.", with_body)
        elif not allowed and repo.gated:
            self._fail(403, "GatedRepo", "Access to this model is restricted.", with_body)
        elif not allowed:
            self._fail(401, "RepoNotFound", "Invalid username or password.", with_body)
        elif revision not in (None, "main", "v1", repo.commit):
            self._fail(404, "RevisionNotFound", "Invalid rev id", with_body)
        else:
            return repo
        return None

    def _sent_token(self, token: str) -> bool:
        return self.headers.get("Authorization") == f"Bearer {token}"

    def _info(self, match: re.Match[str], repo: FakeRepo, with_body: bool) -> None:
        siblings: list[dict[str, object]] = []
        for name, data in repo.files.items():
            entry: dict[str, object] = {"rfilename": name, "size": len(data)}
            entry["blobId"] = repo.git_hash(name)
            if repo.is_large(name):
                entry["lfs"] = {"sha256": repo.sha256(name), "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        body = {"id": match[1], "modelId": match[1], "sha": repo.commit, "siblings": siblings}
        whole = json.dumps({**body, "private": repo.private, "tags": [], "downloads": 0}).encode()
        answer = whole if repo.listing is None else repo.listing
        headers = {"Content-Type": "application/json"}
        if LISTING in repo.dripping:
            return self._drip(200, headers, answer)
        return self._send(200, headers, answer, with_body)

    def _tree(self, match: re.Match[str], repo: FakeRepo, with_body: bool) -> None:
        entries: list[dict[str, object]] = []
        for name, data in repo.files.items():
            entry: dict[str, object] = {"type": "file", "path": name, "size": len(data)}
            entry["oid"] = repo.git_hash(name)
            if repo.is_large(name):
                entry["lfs"] = {"oid": repo.sha256(name), "size": len(data), "pointerSize": 134}
            entries.append(entry)
        self._send_json(entries, with_body)

    def _file(self, match: re.Match[str], repo: FakeRepo, with_body: bool) -> None:
        name = match[3]
        if name not in repo.files:
            return self._fail(404, "EntryNotFound", "Entry not found", with_body)
        data = repo.altered.get(name, repo.files[name])
        etag = repo.etag(name)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes"}
        if repo.is_large(name):
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data))}
        start, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and with_body:
            start, status = int(asked[1]), 206
            self.hub.ranges.append((name, start))
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        limit = repo.cut.get(name)
        if limit is not None and with_body:
            self.close_connection = True
            return self._send(status, headers, data[start:], with_body, max(limit - start, 0))
        if name in repo.dripping and with_body:
            return self._drip(status, headers, data[start:])
        pause = repo.held.get(name)
        if pause is not None and with_body and not self.hub.release.is_set():
            return self._send_held(status, headers, data[start:], max(pause - start, 0))
        return self._send(status, headers, data[start:], with_body)

    def _send_held(self, status: int, headers: dict[str, str], body: bytes, pause: int) -> None:
        """Send ``body``, waiting for the hub's ``release`` after its first ``pause`` bytes."""
        self._send(status, headers, body, True, pause)
        self.hub.holding.set()
        self.hub.release.wait(30)
        with suppress(OSError):  # the client may be gone
            self.wfile.write(body[pause:])

    def _drip(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send ``body`` a byte at a time, never pausing for as long as a client's time limit."""
        self._send(status, headers, body, True, 0)
        for at in range(len(body)):
            if self.hub.release.wait(0.02):
                return
            try:
                self.wfile.write(body[at : at + 1])
            except OSError:  # the client is gone
                return

    def _fail(self, status: int, code: str, text: str, with_body: bool) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": text} if code else {}
        self._send(status, headers, json.dumps({"error": text}).encode(), with_body)

    def _send_json(self, data: object, with_body: bool) -> None:
        headers = {"Content-Type": "application/json"}
        self._send(200, headers, json.dumps(data).encode(), with_body)

    def _send(
        self,
        status: int,
        headers: dict[str, str],
        body: bytes,
        with_body: bool,
        limit: int | None = None,
    ) -> None:
        """Send ``body``, or only its first ``limit`` bytes under the length of the whole."""
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            with suppress(ConnectionError):  # the client may be gone
                self.wfile.write(body[:limit])
