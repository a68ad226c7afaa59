"""One of several processes that have a model together, and what is measured of it: see ``ranks``.

Run as ``python -m nazx_cli.bench.processes.rank CASE``, a ``Case`` as JSON, this file is the first
of them, which starts the others and prints what all of them measured.
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
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nazx_cli.bench.models import kernel_name, weight_bytes, zipf_ids
from nazx_cli.bench.processes.memory import measured
from nazx_cli.bench.results import clock
from nazx_cli.context.ranks.sharing import BLOCK, Share
from nazx_cli.engine.following import follow
from nazx_cli.engine.language_model import LanguageModel, load_planned
from nazx_cli.memory import probe
from nazx_cli.memory.estimate import TextSize
from nazx_cli.memory.plan import LoadOptions
from nazx_cli.ranks import Group, Kind, joined, world_size

SELF = "nazx_cli.bench.processes.rank"
_HINT = "run it again"
_NO_LIMIT = 1 << 50
_TCP_INFO = (192, 120)  # bytes asked for, and where those acknowledged and those received stand
_WARM_UP = 16  # tokens of a context before the one that counts
_FURTHER = 8  # tokens whose median and mean are told


@dataclass(frozen=True)
class Case:
    """A context of ``tokens`` Zipf ids, ``resident`` or live, of the model in ``folder``, held by
    ``processes`` that each compute on so many ``threads``."""

    folder: str
    dtype: str
    tokens: int
    processes: int
    layout: str = "auto"
    resident: bool = False
    block: int = BLOCK
    split: bool = False
    threads: int = 1

    def measure(self) -> dict[str, Any]:
        """Measured in processes of their own: of the ``first`` token and of a ``further`` one a
        ``Ran``, processor seconds those of the busiest process; bytes of the context and at the
        peak of each process; bytes of the first one's weights."""
        return measured(SELF, json.dumps(asdict(self)))

    def load(self, group: Group | None) -> LanguageModel:
        """The model, alone or with the others of ``group``."""
        options = LoadOptions(
            "cpu",
            self.dtype,
            layout=self.layout,
            limit=_NO_LIMIT,
            by=Share(block=self.block, split=self.split and group is not None),
        )
        return load_planned("measured", Path(self.folder), TextSize(), options, group)


class Ran(NamedTuple):
    """What the first process took for a token, of which ``gathering`` seconds for the others, and
    the bytes that it sent and received: as it counts them, and as the system counts its sockets."""

    seconds: float
    processor: float
    gathering: float
    moved: float
    sockets: float


class Timed(Group):
    """A group that knows how long it has gathered, waiting for others included, and how much
    processor time each run took that the first one told of."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(rank, size)
        self.seconds = 0.0
        self.runs: list[float] = []
        self._since: float | None = None

    def gather(self, own: Tensor) -> Tensor:
        seconds, found = clock(lambda: super(Timed, self).gather(own))
        self.seconds += seconds
        return found

    def hear(self) -> list[int]:
        if self._since is not None:
            self.runs.append(time.process_time() - self._since)
        numbers = super().hear()
        runs = numbers[0] in (Kind.STEP, Kind.RUN)
        self._since = time.process_time() if runs else None
        return numbers


def of_tokens(lm: LanguageModel, case: Case, group: Timed | None) -> tuple[list[Ran], int]:
    """The first token and ``_FURTHER`` further ones; and the bytes of this process's part."""
    ids = zipf_ids(lm.config.vocab_size, case.tokens)
    context = lm.new_context()
    context.append(ids[:_WARM_UP])
    lm.next_logits(context)
    context = lm.new_context()
    context.append(ids, resident=case.resident)
    ran = [_ran(lm, context, group)]
    for token in range(_FURTHER + 1):  # for the first that is appended something is made once
        context.append([token])
        ran.append(_ran(lm, context, group))
    return [ran[0], *ran[2:]], context.nbytes


def _ran(lm: LanguageModel, context: Any, group: Timed | None) -> Ran:
    def counted() -> Tensor:
        by_group = (group.seconds, group.moved) if group else (0.0, 0)
        return torch.tensor((time.process_time(), *by_group, _socket_bytes()), dtype=torch.float64)

    before = counted()
    seconds, _ = clock(lambda: lm.next_logits(context))
    return Ran(seconds, *(counted() - before).tolist())


def _lead(case: Case) -> dict[str, Any]:
    """What the first process measures, and the others tell it at the end."""
    if world_size() == 1:
        return _told(case, None)
    with joined(_HINT) as (rank, size):
        return _told(case, Timed(rank, size))


def _told(case: Case, group: Timed | None) -> dict[str, Any]:
    with group.leading() if group else nullcontext():
        lm = case.load(group)
        ran, own = of_tokens(lm, case, group)
        weights, kernel = weight_bytes(lm), kernel_name(lm)
    facts = _facts(own, [each.processor for each in ran])
    held, peaks, first, further = (group.gather(facts) if group else facts[None]).T.tolist()
    rest = [sum(values) / len(values) for values in zip(*ran[1:], strict=True)]
    usual = Ran(median(each.seconds for each in ran[1:]), *rest[1:])
    return {
        "first": ran[0]._replace(processor=max(first))._asdict(),
        "further": usual._replace(processor=max(further))._asdict(),
        "held": held,
        "peaks": peaks,
        "weights": weights,
        "kernel": kernel,
    }


def _follow() -> None:
    with joined(_HINT) as (rank, size):
        group = Timed(rank, size)
        contexts = follow(group, "cpu")
        runs = group.runs[-_FURTHER - 2 :]  # as ``of_tokens`` has them, without the warming up
        held = sum(context.nbytes for context in contexts.values())
        group.gather(_facts(held, [runs[0], *runs[2:]]))


def _facts(held: int, processor: list[float]) -> Tensor:
    """(4,) float64: bytes held and at the peak, processor seconds of the first token and of a
    further one."""
    first, *rest = processor
    facts = (held, probe.peak_resident_bytes(), first, sum(rest) / len(rest))
    return torch.tensor(facts, dtype=torch.float64)


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


@contextmanager
def _others(case: Case) -> Iterator[None]:
    """The processes after the first; this one's environment makes it the first."""
    with closing(socket.socket()) as probing:
        probing.bind(("127.0.0.1", 0))
        port = probing.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0"}
    os.environ |= {"WORLD_SIZE": str(case.processes)}
    command = [sys.executable, "-m", SELF, json.dumps(asdict(case))]
    others = [
        subprocess.Popen(command, env={**os.environ, "RANK": str(rank)})
        for rank in range(1, case.processes)
    ]
    try:
        yield
    finally:
        for other in others:
            other.wait()


def _main(case: Case) -> None:
    torch.set_num_threads(case.threads)
    if os.environ.get("RANK", "0") != "0":
        _follow()
        return
    with _others(case):
        found = _lead(case)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    _main(Case(**json.loads(sys.argv[1])))
