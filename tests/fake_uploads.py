"""What the fake Hub knows of uploads: repositories that are made, large files, commits.

The calls are those of the real client over plain HTTP: who am I, validate the card, create,
preupload, the batch of large files, their bytes, the commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

SAMPLE = re.compile(r"/api/models/([^/]+/[^/]+)/preupload/main")
BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")
COMMIT = re.compile(r"/api/models/([^/]+/[^/]+)/commit/main")
STORED = re.compile(r"/stored/([0-9a-f]{64})")


@dataclass
class Uploads:
    """Who may write where, what was stored, and how uploads go wrong.

    ``failures`` answers calls whose path contains the key by a status and a message. ``cut`` is
    the number of bytes of a large file after which the Hub hangs up, ``cuts`` how often it does.
    ``hold`` is the number of large files after which the next is read half, until the hub's
    ``release``.
    """

    writers: dict[str, set[str]] = field(default_factory=dict)  # namespaces by token
    stored: dict[str, bytes] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)  # SHA-256 of large files, as they came
    commits: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    licences: set[str] = field(default_factory=lambda: {"apache-2.0", "mit", "cc-by-sa-4.0"})
    cut: int | None = None
    cuts: int = 0
    hold: int | None = None


class UploadHandler(BaseHTTPRequestHandler):
    """Answers POST and PUT; the class that mixes it in has ``hub`` and sends."""

    hub: Any

    def do_POST(self) -> None:
        path = self._begin()
        if path is None:
            return None
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        for pattern, reply in ((SAMPLE, self._modes), (BATCH, self._batch), (COMMIT, self._commit)):
            if match := pattern.fullmatch(path):
                if self._may_write(match[1]):
                    reply(match[1], body)
                return None
        return self._fail(404, "", "no such page", True)

    def do_PUT(self) -> None:
        path = self._begin()
        if path is None:
            return None
        match = STORED.fullmatch(path)
        if match is None:
            return self._fail(404, "", "no such page", True)
        uploads, length = self.hub.uploads, int(self.headers["Content-Length"])
        stop = length // 2 if uploads.hold == len(uploads.sent) else None
        if uploads.cuts > 0:
            stop = uploads.cut
        body = self.rfile.read(min(length, length if stop is None else stop))
        if len(body) < length:
            if uploads.cuts > 0:
                uploads.cuts -= 1
                self.close_connection = True
                return self.connection.close()
            self.hub.holding.set()
            self.hub.release.wait(30)
            body += self.rfile.read(length - len(body))
        if hashlib.sha256(body).hexdigest() != match[1]:
            return self._fail(400, "", "the hash differs", True)
        uploads.stored[match[1]] = body
        uploads.sent.append(match[1])
        return self._send(200, {"ETag": '"stored"'}, b"", True)

    def who_am_i(self) -> None:
        """The account of the token that was sent."""
        if (token := self._token()) not in self.hub.uploads.writers:
            return self._fail(401, "", f"Invalid credentials {token}", True)
        return self._send_json({"type": "user", "name": "person", "orgs": []}, True)

    def _begin(self) -> str | None:
        """The path that is asked for; None where that was answered by a failure."""
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        for part, (status, message) in self.hub.uploads.failures.items():
            if part in path:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                # Some servers repeat what they were sent.
                self._fail(status, "Refused", f"{message} {self._token()}", True)
                return None
        return path

    def _token(self) -> str:
        return str(self.headers.get("Authorization", "")).removeprefix("Bearer ")

    def _may_write(self, repo: str) -> bool:
        if repo.partition("/")[0] in self.hub.uploads.writers.get(self._token(), ()):
            return True
        self._fail(403, "", f"Forbidden for {self._token()}", True)
        return False

    def _validate(self, content: str) -> None:
        found = re.search(r"^license: *(\S+)$", content, re.MULTILINE)
        if found is None or found[1] in self.hub.uploads.licences:
            return self._send_json({"errors": [], "warnings": [{"message": "no tags"}]}, True)
        errors = [{"message": '"license" must be one of the known ones'}]
        answer = json.dumps({"errors": errors, "warnings": []}).encode()
        return self._send(400, {"Content-Type": "application/json"}, answer, True)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if not self._may_write(name):
            return None
        if name in self.hub.repos:
            return self._fail(409, "", "You already created this model repo", True)
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.make_repo(name, private=private, token=self._token())
        return self._send_json({"url": f"{self.hub.endpoint}/{name}"}, True)

    def _modes(self, repo: str, body: bytes) -> None:
        known = self.hub.repos[repo]
        files = []
        for asked in json.loads(body)["files"]:
            name = asked["path"]
            mode = "lfs" if name.endswith((".safetensors", ".bin")) else "regular"
            oid = known.etag(name) if name in known.files else None
            files.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send_json({"files": files, "commitOid": known.commit}, True)

    def _batch(self, repo: str, body: bytes) -> None:
        objects = []
        for asked in json.loads(body)["objects"]:
            entry: dict[str, Any] = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.uploads.stored:
                href = f"{self.hub.endpoint}/stored/{asked['oid']}?X-Signature=very-secret"
                entry["actions"] = {"upload": {"href": href, "header": {}}}
            objects.append(entry)
        self._send_json({"transfer": "basic", "objects": objects}, True)

    def _commit(self, repo: str, body: bytes) -> None:
        known, uploads = self.hub.repos[repo], self.hub.uploads
        lines = [json.loads(line) for line in body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit", known.commit) != known.commit:
            return self._fail(412, "", "A commit has happened since", True)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                known.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                known.files[value["path"]] = uploads.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del known.files[value["path"]]
        uploads.commits.append(header)
        known.commit = f"{len(uploads.commits):040x}"
        url = f"{self.hub.endpoint}/{repo}/commit/{known.commit}"
        return self._send_json({"success": True, "commitOid": known.commit, "commitUrl": url}, True)

    def _send_json(self, data: object, with_body: bool) -> None:
        raise NotImplementedError

    def _send(
        self,
        status: int,
        headers: dict[str, str],
        body: bytes,
        with_body: bool,
        limit: int | None = None,
    ) -> None:
        raise NotImplementedError

    def _fail(self, status: int, code: str, text: str, with_body: bool) -> None:
        raise NotImplementedError
