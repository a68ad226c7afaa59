"""Workload ``ranks``: a long context held by several processes on this machine.

For each number of processes seconds of a further token beside one process's, bytes that go from
process to process for it, and what each process holds. Run as ``python -m
nazx_cli.bench.processes.ranks FOLDER DTYPE LAYOUT CONTEXT PROCESSES TOKENS`` this file is the first
of them, which starts the others.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from nazx_cli.bench.models import inattention_config, kernel_name, weight_bytes, zipf_ids
from nazx_cli.bench.processes.memory import measured, random_checkpoint
from nazx_cli.bench.results import Row, Spread, clock, one
from nazx_cli.bench.setup import Setup
from nazx_cli.engine.following import follow
from nazx_cli.engine.language_model import LanguageModel, load_planned
from nazx_cli.memory import probe
from nazx_cli.memory.estimate import TextSize
from nazx_cli.memory.plan import LoadOptions
from nazx_cli.ranks import Group, joined, world_size

NAME = "ranks"
CONTEXTS = (3_000_000,)
LAYOUTS = ("pairs",)
_SELF = "nazx_cli.bench.processes.ranks"
_HINT = "run it again"
_NO_LIMIT = 1 << 50
_TCP_INFO = (192, 120)  # bytes asked for, and where those acknowledged and those received stand


def run(setup: Setup) -> Iterator[Row]:
    """Three rows for each length, layout and number of processes."""
    settings = setup.settings
    with TemporaryDirectory(prefix="nazx-bench-") as scratch:
        config = inattention_config(settings.shapes)
        folder = random_checkpoint(Path(scratch), settings.shapes, config)
        for count in settings.contexts or CONTEXTS:
            for layout in settings.layouts or LAYOUTS:
                alone: dict[str, Any] = {}
                for processes in settings.processes:
                    setup.note(f"{NAME}: {count:,} tokens, layout {layout}, {processes} processes")
                    held = (str(folder), settings.dtype, layout, str(count))
                    real = measured(_SELF, *held, str(processes), str(settings.repeat))
                    alone = alone or real
                    yield from _rows(settings.dtype, layout, count, real, alone)


def _rows(
    dtype: str, layout: str, count: int, real: dict[str, Any], alone: dict[str, Any]
) -> Iterator[Row]:
    processes = len(real["held"])
    kernel = "compiled" if real["kernel"] == "native" else ""
    beside = "" if real is alone else f"{len(alone['held'])} process"
    name = f"{processes} processes" if processes > 1 else "one process"
    row = Row(NAME, "", count, "s", dtype, one(0.0), layout, kernel, beside)
    yield replace(
        row,
        measure=f"further token, {name}",
        ours=Spread(tuple(real["tokens"])),
        theirs=None if real is alone else Spread(tuple(alone["tokens"])),
        details={
            "gathering_seconds": real["gathering"],
            "processor_seconds": real["processor"],
            "first_token_seconds": real["first"],
        },
    )
    yield replace(
        row,
        measure=f"bytes of a token to and from the first, {name}",
        unit="bytes",
        ours=one(real["moved"]),
        peer="",
        details={"socket_bytes": real["sockets"]},
    )
    yield replace(
        row,
        measure=f"context of a process at most, {name}",
        unit="bytes",
        ours=one(max(real["held"])),
        theirs=None if real is alone else one(max(alone["held"])),
        details={
            "first_bytes": real["held"][0],
            "peak_bytes": max(real["peaks"]),
            "weights_bytes": real["weights"],
        },
    )


class _Timed(Group):
    """A group that knows how long it has gathered, waiting for others included."""

    seconds = 0.0

    def gather(self, own: Tensor) -> Tensor:
        seconds, found = clock(lambda: super(_Timed, self).gather(own))
        self.seconds += seconds
        return found


def _lead(folder: str, dtype: str, layout: str, count: int, tokens: int) -> dict[str, Any]:
    """What the first process measures, and the others tell it at the end."""
    options = LoadOptions("cpu", dtype, layout=layout, limit=_NO_LIMIT)
    if world_size() == 1:
        lm = load_planned("random", Path(folder), TextSize(), options)
        found, held = _measured(lm, count, tokens, None)
        return {**found, "held": [held], "peaks": [probe.peak_resident_bytes()]}
    with joined(_HINT) as (rank, size):
        group = _Timed(rank, size)
        with group.leading():
            lm = load_planned("random", Path(folder), TextSize(), options, group)
            found, held = _measured(lm, count, tokens, group)
        each = group.gather(_facts(held)).tolist()
    return {**found, "held": [facts[0] for facts in each], "peaks": [facts[1] for facts in each]}


def _measured(
    lm: LanguageModel, count: int, tokens: int, group: _Timed | None
) -> tuple[dict[str, Any], int]:
    """Of the first token and of ``tokens`` further ones; and the bytes of this process's part."""

    def counted() -> Tensor:
        by_group = (group.seconds, group.moved) if group else (0.0, 0)
        return torch.tensor((*by_group, _socket_bytes(), time.process_time()), dtype=torch.float64)

    context = lm.new_context()
    context.append(zipf_ids(lm.config.vocab_size, count), resident=True)
    first, _ = clock(lambda: lm.next_logits(context))
    context.append([1])
    lm.next_logits(context)  # what is made once for tokens that are appended
    before, seconds = counted(), []
    for token in range(tokens):
        context.append([token])
        seconds.append(clock(lambda: lm.next_logits(context))[0])
    gathering, moved, sockets, processor = ((counted() - before) / tokens).tolist()
    found = {
        "first": first,
        "tokens": seconds,
        "processor": processor,
        "gathering": gathering,
        "moved": moved,
        "sockets": sockets,
        "weights": weight_bytes(lm),
        "kernel": kernel_name(lm),
    }
    return found, context.nbytes


def _follow() -> None:
    with joined(_HINT) as (rank, size):
        group = Group(rank, size)
        contexts = follow(group, "cpu")
        group.gather(_facts(sum(context.nbytes for context in contexts.values())))


def _facts(held: int) -> Tensor:
    return torch.tensor([held, probe.peak_resident_bytes()])


def _socket_bytes() -> int:
    """Bytes that this process's TCP connections have carried both ways, as the system counts them;
    0 where it does not (Linux does)."""
    total = 0
    for path in Path("/proc/self/fd").glob("*"):
        with suppress(OSError, ValueError, struct.error, AttributeError):
            if path.readlink().name.startswith("socket:"):
                with closing(socket.socket(fileno=os.dup(int(path.name)))) as each:
                    size, at = _TCP_INFO
                    info = each.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
                    total += sum(struct.unpack_from("QQ", info, at))
    return total


def _start(processes: int) -> list[subprocess.Popen[bytes]]:
    """The processes after the first; this one's environment makes it the first."""
    with closing(socket.socket()) as probing:
        probing.bind(("127.0.0.1", 0))
        port = probing.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0"}
    os.environ |= {"WORLD_SIZE": str(processes)}
    command = [sys.executable, "-m", _SELF]
    return [
        subprocess.Popen(command, env={**os.environ, "RANK": str(rank)})
        for rank in range(1, processes)
    ]


def _main(folder: str, dtype: str, layout: str, count: str, processes: str, tokens: str) -> None:
    others = _start(int(processes))
    try:
        found = _lead(folder, dtype, layout, int(count), int(tokens))
    finally:
        for other in others:
            other.wait()
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _main(*sys.argv[1:])
    else:
        _follow()
