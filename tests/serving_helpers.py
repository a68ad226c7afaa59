"""``nazx serve`` in a process of its own, with the tiny model, for the tests of server and page."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli_helpers import tiny_checkpoint

if TYPE_CHECKING:
    import openai

BOOK = "The fox bought a lantern.\n\nThe heron bought a red umbrella.\n"
MODEL = "tiny"
PLAIN = {"NAZX_NATIVE": "0"}  # nothing is compiled: both sides compute alike, and start sooner


@dataclass
class Server:
    """A server in a process of its own."""

    port: int
    process: subprocess.Popen[str]
    home: Path
    model: str
    key: str = ""

    def client(self, key: str = "none") -> openai.OpenAI:
        import openai

        url = f"http://127.0.0.1:{self.port}/v1"
        return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)

    @property
    def _key(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}

    def raw(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, object]]:
        """Status and JSON of a request; header names have ``_`` for ``-``."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        link.request(method, path, body, {"content-type": "application/json"} | self._key | named)
        answer = link.getresponse()
        return answer.status, json.loads(answer.read())

    def text(self, path: str) -> str:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        link.request("GET", path, headers=self._key)
        return link.getresponse().read().decode()

    def metric(self, name: str) -> float:
        found = re.search(rf"^nazx_{re.escape(name)} (\S+)$", self.text("/metrics"), re.MULTILINE)
        assert found is not None
        return float(found[1])

    def wait_for(self, name: str, value: float) -> None:
        until = time.monotonic() + 30
        while self.metric(name) != value:
            assert time.monotonic() < until, f"{name} is {self.metric(name)}"
            time.sleep(0.02)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


def start(folder: Path, *options: str, key: str = "") -> Server:
    home = folder / "home"
    home.mkdir(parents=True)
    model = tiny_checkpoint(folder / "models" / MODEL)
    env = {name: value for name, value in os.environ.items() if not name.startswith("NAZX_")}
    env |= {"NAZX_HOME": str(home), **PLAIN, "HF_HUB_OFFLINE": "1", "NAZX_API_KEY": key}
    command = [sys.executable, "-m", "nazx_cli", "serve", "-m", str(model), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--device", "cpu", *options], stderr=subprocess.PIPE, text=True, env=env
    )
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"serving at http://127\.0\.0\.1:(\d+);", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return Server(int(found[1]), process, home, str(model), key)
    raise AssertionError("the server did not start")
