"""Processes that hold a context together: forked, so that none has to import torch again."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from nazx_cli.cli.app import main
from nazx_cli.engine.following import follow
from nazx_cli.ranks import Group, joined

HINT = "start all again"


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun would tell a rank."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def forked(body: Callable[[], None], settings: dict[str, str]) -> int:
    """The id of a process that runs ``body`` and ends."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.environ.update(settings)
        body()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def group_of(size: int, change: Callable[[], None] = lambda: None) -> Iterator[Group]:
    """A group that this process leads; the others follow on the CPU, after ``change``."""
    port = free_port()

    def run() -> None:
        change()
        with joined(HINT) as (rank, ranks):
            follow(Group(rank, ranks), "cpu")

    others = [forked(run, environment(rank, size, port)) for rank in range(1, size)]
    with mock.patch.dict(os.environ, environment(0, size, port)), joined(HINT) as (rank, ranks):
        group = Group(rank, ranks)
        with group.leading():
            yield group
    assert [os.waitpid(pid, 0)[1] for pid in others] == [0] * (size - 1)


@dataclass(frozen=True)
class Command:
    """``nazx`` run by one rank; what it writes goes to files."""

    pid: int
    folder: Path

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text(encoding="utf-8")

    def wait(self) -> int:
        """Its exit code, or minus the signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def commands(size: int, folder: Path, *arguments: str, **settings: str) -> list[Command]:
    """``nazx`` with the same arguments in every rank; each reads ``folder / "stdin"``."""
    port, started = free_port(), []
    (folder / "stdin").touch()
    for rank in range(size):
        own = folder / str(rank)
        own.mkdir(parents=True)

        def run(own: Path = own) -> None:
            for number, path, flags in (
                (0, folder / "stdin", os.O_RDONLY),
                (1, own / "out", os.O_CREAT | os.O_WRONLY),
                (2, own / "err", os.O_CREAT | os.O_WRONLY),
            ):
                os.dup2(os.open(path, flags, 0o600), number)
            for number, name in enumerate(("stdin", "stdout", "stderr")):
                setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))
            sys.argv = ["nazx", *arguments]
            main()

        pid = forked(run, {**environment(rank, size, port), **settings})
        started.append(Command(pid, own))
    return started
