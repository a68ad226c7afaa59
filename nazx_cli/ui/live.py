"""An answer as it is written: its open lines, what is going on, and the gauge, kept up to date.

A thread draws, so that the gauge moves while the main thread is inside the model.
"""

from __future__ import annotations

import threading
import time
from typing import TextIO

from rich.text import Text

from nazx_cli.documents.control import ControlFilter, strip_control
from nazx_cli.ui.area import Area
from nazx_cli.ui.echo import NoEcho
from nazx_cli.ui.gauge import Gauge
from nazx_cli.ui.stream import Stream

_EVERY = 0.25  # seconds between two frames where nothing comes in
_LEAST = 0.08  # and where text does
_SHARE = 12  # drawing may take one part in so many of the time
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_SPINNER = "|/-\\"


class Live:
    """Draws on ``out`` from ``start`` to ``stop``: the text of ``stream``, the status, ``gauge``.

    ``push``, ``note`` and ``show_status`` may be called in between; without a stream there is
    no text. What ``stop`` leaves on the screen is the whole text and the notes.
    """

    def __init__(self, out: TextIO, stream: Stream | None, gauge: Gauge | None) -> None:
        self._area = Area(out)
        self._stream = stream
        self._gauge = gauge
        self._filter = ControlFilter()
        self._notes: list[Text] = []
        self._status = ""
        self._begin = time.monotonic()
        self._spinner = (
            _SPINNER if "utf" in (getattr(out, "encoding", None) or "").lower() else _PLAIN_SPINNER
        )
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._over = threading.Event()
        self._echo = NoEcho()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to draw."""
        self._echo.__enter__()
        self._thread = threading.Thread(target=self._run, name="nazx-live", daemon=True)
        self._thread.start()

    def push(self, text: str) -> None:
        """Show a piece of the answer."""
        if self._stream is not None:
            with self._lock:
                self._stream.push(self._filter.push(text))
            self._wake.set()

    def note(self, text: str) -> None:
        """Print a line above what is still open."""
        with self._lock:
            self._notes += [Text(line) for line in strip_control(text).split("\n")]
        self._wake.set()

    def show_status(self, text: str) -> None:
        """Show what is going on; nothing where ``text`` is empty."""
        with self._lock:
            self._status = strip_control(text)
        self._wake.set()

    def stop(self) -> None:
        """Print what is left and remove the rest; it can be stopped twice."""
        if self._thread is None:
            return
        try:
            self._over.set()
            self._wake.set()
            self._thread.join()
            self._thread = None
            if self._failure is not None:
                raise self._failure
            if self._stream is not None:
                self._stream.push(self._filter.flush())
            self._frame(is_over=True)
        finally:
            self._area.close()
            self._echo.__exit__(None, None, None)

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
            final, self._notes = self._notes, []
            text: list[Text] = []
            if self._stream is not None:
                room = max(1, height - 2 - len(below))
                lines = self._stream.advance(width, room, is_over=is_over)
                final, text = final + lines.final, lines.open
        self._area.draw(final, text + below)

    def _below(self, width: int) -> list[Text]:
        """The lines under the text."""
        lines: list[Text] = []
        if self._status:
            seconds = time.monotonic() - self._begin
            turn = self._spinner[int(seconds / _EVERY) % len(self._spinner)]
            lines.append(Text(f"{turn} {self._status}  {seconds:.0f} s", no_wrap=True))
        if self._gauge is not None:
            lines.append(self._gauge.rich_text(width - 1))
        return lines
