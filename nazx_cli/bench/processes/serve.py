"""Workload ``serve``: what a request takes of ``nazx serve`` with one client and with many at once,
beside llama-cpp-python's server on the same weights.

Both are processes of their own, on as many threads as the settings have. Every request is a chat of
one question that no other has, answered greedily with as many tokens on both sides, and streamed;
servers take turns. NazX's may take a tenth more memory than its plan asks for.
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import count
from statistics import median
from tempfile import TemporaryFile
from time import monotonic, perf_counter, sleep
from typing import Any

from nazx_cli.bench.peers import llama_peer, llama_server
from nazx_cli.bench.results import Row, Side, Spread
from nazx_cli.bench.setup import Setup
from nazx_cli.catalog.model_ref import ModelRef
from nazx_cli.errors import ModelUnavailableError, NazxError
from nazx_cli.memory import probe
from nazx_cli.memory.estimate import TextSize
from nazx_cli.memory.plan import LoadOptions, Machine, plan

SERVE = "serve"
_LEAST = 4  # requests of a round: one client asks so many, one after the other
_POSITIONS = 2048  # that llama.cpp has room for
_PATIENCE = 300.0  # seconds for a server to start
_LONGEST = 3600.0  # seconds that a client waits: with 64 on a slow machine the last one waits long
_HOST = "127.0.0.1"
_ROUNDED = 10_000_000  # bytes
_SPARE = 1.1  # of the plan: the server's own libraries are not in this process's
_FOUR_BITS = "nf4"  # our weights that are as small as those in the peer's file
_QUESTION = (
    "Write a long letter, number {number}, to a friend who lives by the sea, about a fox that "
    "bought a lantern and a heron that bought a red umbrella, and tell how the two of them met on "
    "a rainy evening, what each of them said, and why they stayed friends for many years."
)
_numbers = count(1)


@dataclass(frozen=True)
class Answered:
    """A request's answer: seconds until its first text, and why it ended."""

    first: float
    finish: str


@dataclass
class Server:
    """A server that runs.

    For each number of clients and round ``firsts`` are the median seconds to the first text,
    ``computed`` the seconds of processor time per request. ``failed`` counts requests without an
    answer, ``short`` answers with fewer tokens than were asked for.
    """

    process: subprocess.Popen[bytes]
    port: int
    precision: str
    note: str = ""
    limit: int = 0
    model: str = ""
    firsts: dict[int, list[float]] = field(default_factory=dict)
    computed: dict[int, list[float]] = field(default_factory=dict)
    failed: int = 0
    short: int = 0

    def ready(self) -> bool:
        """Whether it answers by now; then its model's name is known."""
        with suppress(OSError, HTTPException, ValueError, LookupError):
            link = HTTPConnection(_HOST, self.port, timeout=5)
            link.request("GET", "/v1/models")
            self.model = json.loads(link.getresponse().read())["data"][0]["id"]
        return bool(self.model)

    def warm_up(self, tokens: int) -> int:
        """Ask once what is not measured; how many tokens the prompt has by the server's count."""
        body = json.dumps(self._body(tokens) | {"stream": False})
        link = HTTPConnection(_HOST, self.port, timeout=_PATIENCE)
        link.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        answer = json.loads(link.getresponse().read())
        if "usage" not in answer:
            told = answer.get("error", {}).get("message", "it does not say why")
            raise NazxError(f"a server cannot answer: {told}", "use another model")
        return int(answer["usage"]["prompt_tokens"])

    def round(self, clients: int, tokens: int) -> float:
        """Seconds per request of so many clients at once."""
        number = max(clients, _LEAST)
        before = probe.processor_seconds(self.process.pid)
        with ThreadPoolExecutor(clients) as pool:
            began = perf_counter()
            found = list(pool.map(lambda _: self._ask(tokens), range(number)))
            seconds = perf_counter() - began
        if self.process.poll() is not None:
            raise NazxError("a server ended before its requests", "run it again")
        answered = [each for each in found if each is not None]
        self.failed += number - len(answered)
        self.short += sum(each.finish != "length" for each in answered)
        if not answered:
            raise NazxError("a server answered no request", "run it again")
        self.firsts.setdefault(clients, []).append(median(each.first for each in answered))
        computed = probe.processor_seconds(self.process.pid) - before
        self.computed.setdefault(clients, []).append(computed / len(answered))
        return seconds / len(answered)

    def _body(self, tokens: int) -> dict[str, Any]:
        question = _QUESTION.format(number=next(_numbers))
        body = {"model": self.model, "messages": [{"role": "user", "content": question}]}
        return body | {"max_tokens": tokens, "temperature": 0, "stream": True}

    def _ask(self, tokens: int) -> Answered | None:
        """One request; None where it is not answered."""
        began, first, finish = perf_counter(), None, ""
        try:
            link = HTTPConnection(_HOST, self.port, timeout=_LONGEST)
            body = json.dumps(self._body(tokens))
            link.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
            for line in link.getresponse():
                if not line.startswith(b"data: {"):
                    continue
                choice = json.loads(line[6:])["choices"][0]
                finish = choice["finish_reason"] or finish
                if first is None and choice["delta"].get("content"):
                    first = perf_counter() - began
        except (OSError, HTTPException, ValueError, LookupError):
            return None
        return None if first is None or not finish else Answered(first, finish)


def run(setup: Setup) -> Iterator[Row]:
    """For each number of clients and each way to hold our weights what a request takes and how soon
    its first token comes, then the peak of memory; each beside the peer's."""
    settings = setup.settings
    kinds = [settings.dtype, *(kind for kind in settings.quantize if kind == _FOUR_BITS)]
    with ExitStack() as stack:
        ours = [stack.enter_context(_nazx(setup, kind)) for kind in kinds]
        theirs, missing = _peer(setup, stack)
        servers = [*ours, *([theirs] if theirs else [])]
        asked = [server.warm_up(settings.new_tokens) for server in servers]
        notes = [theirs.note if theirs else missing]
        notes += [f"prompts of {min(asked)} to {max(asked)} tokens"] if len(set(asked)) > 1 else []
        note = "; ".join(notes)
        told = [_Told(server, theirs, note, asked[0], settings.new_tokens) for server in ours]
        for clients in settings.clients:
            sides = [_side(server, clients, settings.new_tokens) for server in servers]
            label = f"{clients} client{'s' if clients > 1 else ''}"
            runs = setup.alternate(f"{SERVE}, {label}", sides, warm_up=False)
            measures: dict[str, Sequence[Sequence[float]]] = {
                "time per request": runs,
                "processor time per request": [server.computed[clients] for server in servers],
                "first token": [server.firsts[clients] for server in servers],
            }
            for at, each in enumerate(told):
                for measure, found in measures.items():
                    yield each.row(f"{measure}, {label}", "s", found[at], found[-1])
        peaks = [probe.peak_resident_bytes(server.process.pid) for server in servers]
        for at, each in enumerate(told):
            yield each.row("peak memory of the server", "bytes", peaks[at : at + 1], peaks[-1:])


def _side(server: Server, clients: int, tokens: int) -> Side:
    return lambda: server.round(clients, tokens)


@dataclass(frozen=True)
class _Told:
    """What all rows of one of our servers have."""

    server: Server
    theirs: Server | None
    note: str
    prompt: int
    new_tokens: int

    def row(self, measure: str, unit: str, ours: Sequence[float], theirs: Sequence[float]) -> Row:
        details: dict[str, float | int] = {"new_tokens": self.new_tokens}
        for whose, server in (("our", self.server), ("their", self.theirs)):
            if server is not None:
                details |= {f"{whose}_failed": server.failed, f"{whose}_short": server.short}
        if unit == "bytes":
            details["limit_bytes"] = self.server.limit
        return Row(
            SERVE,
            measure,
            self.prompt,
            unit,
            self.server.precision,
            Spread(tuple(ours)),
            peer=llama_peer.full_name().replace(llama_peer.NAME, "llama_cpp.server"),
            theirs=Spread(tuple(theirs)) if self.theirs else None,
            note=self.note,
            details=details,
        )


@contextmanager
def _nazx(setup: Setup, kind: str) -> Iterator[Server]:
    """``nazx serve`` with weights held as ``kind`` and a limit of memory."""
    settings = setup.settings
    quantize = kind if kind == _FOUR_BITS else None
    model = ModelRef.parse(settings.model)
    model.fetch()
    config, dtype = model.config(), str(setup.dtype).removeprefix("torch.")
    options = LoadOptions("cpu", dtype, quantize, limit=sys.maxsize)
    machine = Machine(dtype, held=probe.resident_bytes())
    total = plan(config, TextSize.of((), config), options, machine).estimate.total
    limit = math.ceil(total * _SPARE / _ROUNDED) * _ROUNDED
    setup.note(f"{SERVE}: starting nazx serve, {kind}, within {limit:,} bytes")
    port = _free_port()
    command = [sys.executable, "-m", "nazx_cli", "serve", "-m", settings.model, "--port", str(port)]
    command += ["--device", "cpu", "--dtype", dtype, "--vram-limit", str(limit)]
    command += ["--quantize", kind] if quantize else []
    with _running(command, port, settings.threads, quantize or dtype) as server:
        server.limit = limit
        yield server


def _peer(setup: Setup, stack: ExitStack) -> tuple[Server | None, str]:
    """The peer's server; None, and why there is none."""
    if not llama_server.is_installed():
        return None, llama_server.MISSING
    settings = setup.settings
    try:
        file = llama_peer.published(settings.model, settings.gguf, setup.note)
    except ModelUnavailableError as error:
        return None, str(error)
    repack, note = llama_peer.how_it_runs(file)
    if repack is None:
        return None, note
    port, precision = _free_port(), llama_peer.precision_of(file)
    setup.note(f"{SERVE}: starting llama_cpp.server, {precision}")
    command = llama_server.command(file, port, settings.threads, _POSITIONS, repack)
    server = stack.enter_context(_running(command, port, settings.threads, precision))
    server.note = "; ".join(filter(None, (f"theirs is {precision}", note)))
    return server, ""


@contextmanager
def _running(command: list[str], port: int, threads: int, precision: str) -> Iterator[Server]:
    """A server while it runs; ``NazxError`` where it does not start."""
    env = {name: value for name, value in os.environ.items() if name != "NAZX_API_KEY"}
    env["OMP_NUM_THREADS"] = str(threads)
    with TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=env)
        server = Server(process, port, precision)
        try:
            until = monotonic() + _PATIENCE
            while not server.ready():
                if process.poll() is not None or monotonic() > until:
                    said.seek(0)
                    lines = said.read().decode(errors="replace").strip().splitlines()
                    last = lines[-1] if lines else "it said nothing"
                    told = last.removeprefix("error: ").partition("; next:")[0]
                    raise NazxError(f"a server did not start: {told}", "run it again")
                sleep(0.2)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as probing:
        probing.bind((_HOST, 0))
        return int(probing.getsockname()[1])
