"""An answer on the terminal as it is written: its open lines, what is going on, and the gauge.

``Area`` is the last lines of the terminal, drawn anew as often as one likes; what is final goes
above. The cursor rests, hidden, at the beginning of the area: whatever a resize does to the
lines below it, one erasure from there on removes all of them. ``Live`` fills the area from a
thread, so that the gauge moves while the main thread is inside the model.

Rich's ``Live`` and ``Markdown`` would do the same in fewer lines. Measured on 80x24 with the gauge
below (ours in brackets): they render the whole answer for each frame, 6 ms of CPU and 5.1 kB at
800 tokens, growing with the answer (1.1 ms and 0.5 kB, constant); an answer taller than the
screen leaves 143 copies of itself in the scrollback ("visible") or hides the newest words and
the gauge ("crop"); an unchanged frame is written again (not at all). Of the text, lines are
joined, ``<think>`` and link targets vanish, and code is padded and wrapped. So Rich has what it
does as well: styles, widths, tables, highlighting, progress bars.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TextIO

from rich.console import Console
from rich.text import Text

from nazx_cli.documents.control import ControlFilter, strip_control
from nazx_cli.ui.terminal.gauge_line import Gauge
from nazx_cli.ui.terminal.screen import knows_unicode, no_echo
from nazx_cli.ui.terminal.stream import ThoughtfulStream, fold
from nazx_cli.ui.terminal.streams import raw, terminal_size
from nazx_cli.ui.terminal.tables import wrapped

# Terminals that know the first pair show all between them at once; others ignore it.
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_CUT, _WRAP = "\x1b[?7l", "\x1b[?7h"  # what happens to a line that is wider than we think
_ERASE_LINE, _ERASE_BELOW = "\x1b[K", "\x1b[J"

_EVERY = 0.25  # seconds between two frames where nothing comes in
_LEAST = 0.08  # and where text does
_SHARE = 12  # drawing may take one part in so many of the time
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_SPINNER = "|/-\\"


def can_draw(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that understands cursor movements."""
    if not stream.isatty():
        return False
    console = Console(file=stream)
    return not console.is_dumb_terminal and not console.legacy_windows


class Area:
    """An area at the end of what the terminal ``out`` shows. One thread at a time may use it."""

    def __init__(self, out: TextIO) -> None:
        self._out = raw(out)
        # It only turns text into sequences, which go out in one write.
        self._console = Console(file=io.StringIO(), force_terminal=True, highlight=False)
        self._shown: tuple[tuple[int, int], list[str]] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal now."""
        return terminal_size(self._out)

    def draw(self, final: Sequence[Text], lines: Sequence[Text]) -> None:
        """Print ``final`` once and for all, and below it show ``lines``.

        A line too wide goes on in the next row; of more rows than there is room for, the last
        are shown. Nothing is written where nothing has changed.
        """
        size = self.size
        rows = [row for line in map(_clean, lines) for row in fold(line, size[0])]
        drawn = [self._ansi(row) for row in rows[-max(1, size[1] - 1) :]]
        if not final and (size, drawn) == self._shown:
            return
        before, self._shown = self._shown, (size, drawn)
        stale = 0
        erased = ""
        if before is not None and before[0] != size:
            erased = _ERASE_BELOW  # nobody knows how many rows they are now
        elif before is not None and final:
            erased = _place([""] * len(before[1]), 0)
        elif before is not None:
            stale = max(0, len(before[1]) - len(drawn))
        above = "".join(f"{self._ansi(_clean(line))}\r\n" for line in final)
        self._write(f"{_BEGIN}{_HIDE}\r{erased}{above}{_place(drawn, stale)}{_END}")

    def close(self) -> None:
        """Remove the area; the cursor is then where it began."""
        if self._shown is not None:
            rows, self._shown = len(self._shown[1]), None
            self._write(f"\r{_place([''] * rows, 0)}{_WRAP}{_SHOW}")

    def _ansi(self, line: Text) -> str:
        with self._console.capture() as capture:
            self._console.print(line, end="", soft_wrap=True)
        return capture.get()

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _clean(line: Text) -> Text:
    """``line`` without anything that would act on the terminal."""
    plain = strip_control(line.plain)
    return line if plain == line.plain else Text(plain, line.style)


def _place(drawn: Sequence[str], stale: int) -> str:
    """Write ``drawn`` from the cursor on, erase ``stale`` rows after it, and go back.

    Row by row: some terminals take an erasure from the top of the screen on for a cleared
    screen, and save what was there.
    """
    rows = [*drawn, *[""] * stale]
    if not rows:
        return ""
    body = "\r\n".join(_ERASE_LINE + row for row in rows)
    back = f"\r\x1b[{len(rows) - 1}A" if len(rows) > 1 else "\r"
    return f"{_CUT}{body}{back}{_WRAP}"


class Live:
    """Draws on ``out`` from ``start`` to ``stop``: the text of ``stream``, the status, ``gauge``.

    ``push``, ``note`` and ``show_status`` may be called in between; without a stream there is
    no text. What ``stop`` leaves on the screen is the whole text and the notes.
    """

    def __init__(self, out: TextIO, stream: ThoughtfulStream | None, gauge: Gauge | None) -> None:
        self._area = Area(out)
        self._stream = stream
        self._gauge = gauge
        self._filter = ControlFilter()
        self._notes: list[str] = []
        self._status: str | Callable[[], str] = ""
        self._begin = time.monotonic()
        self._spinner = _SPINNER if knows_unicode(out) else _PLAIN_SPINNER
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._over = threading.Event()
        self._drawn = ExitStack()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def draws_text(self) -> bool:
        """False where only status and gauge are drawn."""
        return self._stream is not None

    def start(self) -> None:
        """Begin to draw."""
        self._drawn.enter_context(no_echo())
        self._drawn.callback(self._area.close)
        self._thread = threading.Thread(target=self._run, name="nazx-live", daemon=True)
        self._thread.start()

    def push(self, text: str) -> None:
        """Show a piece of the answer."""
        if self._stream is not None:
            with self._lock:
                self._stream.push(self._filter.push(text))
            self._wake.set()

    def think(self, text: str) -> None:
        """Show a piece of what is thought before the answer."""
        if self._stream is not None:
            with self._lock:
                self._stream.think(self._filter.push(text))
            self._wake.set()

    def note(self, text: str) -> None:
        """Print a line above what is still open, broken between words."""
        with self._lock:
            self._notes += text.split("\n")
        self._wake.set()

    def show_status(self, text: str | Callable[[], str]) -> None:
        """Show what is going on, asked anew for each frame where it can be called; nothing where
        ``text`` is empty."""
        with self._lock:
            self._status = text
        self._wake.set()

    def stop(self) -> None:
        """Print what is left and remove the rest; it can be stopped twice."""
        if self._thread is None:
            return
        with self._drawn:
            self._over.set()
            self._wake.set()
            self._thread.join()
            self._thread = None
            if self._failure is not None:
                raise self._failure
            if self._stream is not None:
                self._stream.push(self._filter.flush())
            self._frame(is_over=True)

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                begin = time.perf_counter()
                self._frame()
                took = time.perf_counter() - begin
                self._over.wait(max(_LEAST, took * _SHARE))
                self._wake.wait(_EVERY)
                self._wake.clear()
        # Whatever it is, the thread that answers is the one to report it.
        except BaseException as error:
            self._failure = error

    def _frame(self, *, is_over: bool = False) -> None:
        width, height = self._area.size
        below = [] if is_over else self._below(width)
        with self._lock:
            notes, self._notes = self._notes, []
            final = [Text(row) for note in notes for row in wrapped(strip_control(note), width)]
            text: list[Text] = []
            if self._stream is not None:
                room = max(1, height - 2 - len(below))
                lines = self._stream.advance(width, room, is_over=is_over)
                final, text = final + lines.final, lines.open
        self._area.draw(final, text + below)

    def _below(self, width: int) -> list[Text]:
        """The lines under the text."""
        lines: list[Text] = []
        status = self._status
        if told := status() if callable(status) else status:
            seconds = time.monotonic() - self._begin
            turn = self._spinner[int(seconds / _EVERY) % len(self._spinner)]
            lines.append(Text(f"{turn} {told}  {seconds:.0f} s", no_wrap=True))
        if self._gauge is not None:
            lines.append(self._gauge.rich_text(width - 1))
        return lines
