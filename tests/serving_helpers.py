"""``nazx serve`` in a process of its own, with the tiny model, for the tests of server and page."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli_helpers import run_nazx, tiny_checkpoint

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


def asked(question: str = "Who?", **more: object) -> dict[str, object]:
    """What OpenAI's client is given."""
    return {"model": MODEL, "messages": [{"role": "user", "content": question}]} | more


def told(server: Server, path: str) -> list[dict[str, object]]:
    """A list that the server has."""
    status, found = server.raw("GET", path)
    assert status == 200
    data: list[dict[str, object]] = found["data"]  # type: ignore[assignment]
    return data


def ask_nazx(server: Server, question: str, *options: str) -> dict[str, object]:
    """What ``nazx ask`` says."""
    env = {"NAZX_HOME": str(server.home), **PLAIN}
    arguments = ("ask", "-m", server.model, "--max-tokens", "24", "--json", *options, question)
    out, err, code = run_nazx(*arguments, env=env)
    assert code == 0, err
    found: dict[str, object] = json.loads(out)
    return found


def upload(client: openai.OpenAI, name: str, data: bytes) -> str:
    """The id of a document that is sent."""
    return str(client.files.create(file=(name, data), purpose="user_data").id)


@contextmanager
def running(folder: Path, *options: str, key: str = "") -> Iterator[Server]:
    """A server that ends by SIGTERM, as it should, where nothing else ended it."""
    server = start(folder, *options, key=key)
    yield server
    if server.process.poll() is None:
        assert server.end(signal.SIGTERM) == 0


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


@contextmanager
def slowed(server: Server) -> Iterator[None]:
    """The server gets a tenth of the time, as a model of a useful size needs ten times as long: a
    browser on a busy machine would hear of the first word after the last was said."""
    ended = threading.Event()

    def hold() -> None:
        while not ended.is_set():
            server.process.send_signal(signal.SIGSTOP)
            ended.wait(0.045)
            server.process.send_signal(signal.SIGCONT)
            ended.wait(0.005)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        yield
    finally:
        ended.set()
        holder.join()
        server.process.send_signal(signal.SIGCONT)
