"""The process's own streams: the one gate for everything that is printed, and what becomes of
output where a stream is closed, full, or has lost its reader.

Whoever prints, be it a command, the option parser or a library, prints through a gate, which lets
no terminal control through. What draws (Rich, the prompt, ``live.Area``) writes to ``raw`` and
strips what it is told itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO, cast

from nazx_cli.documents.control import strip_control

_SIZE = (80, 24)


class OutputError(Exception):
    """Nothing more can be written to stdout; ``reason`` is empty where its reader has gone, as
    ``head`` does, which is no failure."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Gate:
    """Writes to ``stream`` what is left of a text without terminal control.

    Where that fails, a ``lossy`` one loses it, and any other raises ``OutputError`` from then on
    at every write: the option parser swallows what a first one raises.
    """

    def __init__(self, stream: TextIO, *, lossy: bool) -> None:
        self.stream = stream
        self._lossy = lossy
        self._failure: str | None = None

    def write(self, text: str) -> int:
        if self._failure is None:
            self._try(lambda: self.stream.write(strip_control(text)))
        elif not self._lossy:
            raise OutputError(self._failure)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self._failure is None:
            self._try(self.stream.flush)

    def _try(self, put: Callable[[], object]) -> None:
        try:
            put()
        except OSError as error:
            gone = isinstance(error, BrokenPipeError)
            self._failure = "" if gone else error.strerror or str(error)
            _give_up(self.stream)
            if not self._lossy:
                raise OutputError(self._failure) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def gated(stream: TextIO, *, lossy: bool = False) -> TextIO:
    """``stream`` behind a gate; itself where it is behind one."""
    return stream if isinstance(stream, _Gate) else cast(TextIO, _Gate(stream, lossy=lossy))


def raw(stream: TextIO) -> TextIO:
    """The stream behind a gate, for what draws."""
    return stream.stream if isinstance(stream, _Gate) else stream


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of the terminal that ``stream`` is; 80 by 24 where it does not tell."""
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns, rows = 0, 0
    return columns or _SIZE[0], rows or _SIZE[1]


def columns_of(stream: TextIO) -> int | None:
    """How wide what is printed may be: as ``COLUMNS`` says, else as the terminal is; None where
    ``stream`` is none."""
    if not stream.isatty():
        return None
    told = os.environ.get("COLUMNS", "")
    return int(told) if told.isdecimal() and int(told) > 0 else terminal_size(stream)[0]


def open_streams() -> None:
    """Make the process's streams usable, whatever they are, and put gates before the outputs.

    A descriptor that is closed gets one in its place, so that no file which is opened later
    becomes our stdout: nothing can be read from it, and writing to stdout fails as it should.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free: this one
    sys.stdin = _usable(sys.stdin, 0, "r")
    sys.stdout = gated(_usable(sys.stdout, 1, "w"))
    sys.stderr = gated(_usable(sys.stderr, 2, "w"), lossy=True)


def _usable(stream: TextIO | None, number: int, mode: str) -> TextIO:
    """A character that cannot be read or shown is substituted; it is no reason to fail."""
    if stream is None:
        return cast(TextIO, open(number, mode, encoding="utf-8", errors="replace", closefd=False))
    with suppress(AttributeError):  # what a caller put in its place
        stream.reconfigure(errors="replace")  # type: ignore[attr-defined]
    return stream


def _give_up(stream: TextIO) -> None:
    """Have what ``stream`` still holds go nowhere: Python flushes it once more at exit."""
    with suppress(OSError, ValueError):  # no descriptor behind it, as in tests
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
