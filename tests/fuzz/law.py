"""A case, what came of it, and the law that holds for every one.

The law: an exit code of the table, reached within the time and the memory allowed; no traceback,
no internal error, nothing on the streams that would act on a terminal; and no given file changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 10.0
"""Processor time that a case may take: that of the clock depends on what else is running."""
MEMORY = 2 << 30
"""Bytes that a case may take beyond those of a process that has everything imported."""
MODEL = "../model"
"""The folder of a tiny checkpoint, from the folder that a case runs in."""

_EXIT_CODES = frozenset((0, 1, 2, 3, 4, 5, 130))
_RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_FAULTS = ("Traceback (most recent call last)", "internal error", "panicked at")


@dataclass(frozen=True)
class Case:
    """One run of ``nazx``, in a folder of its own that is wiped first.

    files       path in that folder -> content
    prepare     called with the folder once the files are there, for what bytes cannot say:
                links, pipes, permissions
    may_change  paths (or folders) that the command is allowed to write, create and remove; of all
                else nothing may be lost or changed
    may_add     whether other files may come to be
    entry       the module whose ``main`` is run
    after       called with the folder and the outcome, for what else must hold; it raises
                AssertionError
    """

    name: str
    argv: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    stdin: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None
    may_change: tuple[str, ...] = ()
    may_add: bool = False
    entry: str = "nazx_cli.cli.app"
    after: Callable[[Path, Outcome], None] | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    code     its exit code; negative where a signal ended it; None where time did
    seconds  processor time
    memory   bytes at its peak beyond those it began with
    changed  paths of files that were given and are not as they were
    """

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    memory: int
    changed: tuple[str, ...] = ()


def check(outcome: Outcome) -> None:
    """Raise AssertionError, with all that is broken, for an outcome that breaks the law."""
    broken = list(_broken(outcome))
    assert not broken, "; ".join(broken)


def _broken(outcome: Outcome) -> Iterator[str]:
    if outcome.code is None or outcome.seconds > SECONDS:
        yield f"took longer than {SECONDS:.0f} s, or waited ({outcome.seconds:.1f} s are counted)"
    elif outcome.code not in _EXIT_CODES:
        yield f"exit code {outcome.code} is none of the table"
    if outcome.memory > MEMORY:
        yield f"took {outcome.memory >> 20} MiB"
    for name, text in (("stdout", outcome.stdout), ("stderr", outcome.stderr)):
        if raw := _RAW.search(text):
            around = text[max(0, raw.start() - 40) : raw.end() + 40]
            yield f"{name} has a raw {raw.group()!r} in {around!r}"
        for fault in _FAULTS:
            if fault in text:
                yield f"{name} says {text[text.index(fault) :][:300]!r}"
    if outcome.changed:
        yield f"changed {', '.join(outcome.changed)}"
