"""Where a turn is shown: drawn live on a terminal, or written plainly anywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from nazx_cli.documents.control import ControlFilter
from nazx_cli.ui.screen import Screen

if TYPE_CHECKING:
    from nazx_cli.ui.gauge import Gauge
    from nazx_cli.ui.live import Live

_WAITING = "reading"


class AnswerStream:
    """Writes an answer as it comes, without control sequences, and ends its last line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._filter = ControlFilter()
        self._at_line_start = True

    def write(self, text: str) -> None:
        """Show a piece of the answer."""
        self._put(self._filter.push(text))

    def end(self) -> None:
        """Show what was held back, and end the line."""
        self._put(self._filter.flush())
        if not self._at_line_start:
            self._put("\n")

    def _put(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._out.flush()
            self._at_line_start = text.endswith("\n")


class Display:
    """Shows one answer on ``screen``; with ``is_text`` False, only that it is being made.

    On a terminal the answer is drawn, with the gauge below it. Where stdout is none, it gets
    the bare text, and stderr the gauge if it is one. Else both are written to as ever.
    """

    def __init__(self, screen: Screen, gauge: Gauge | None, *, is_text: bool) -> None:
        self._screen = screen
        self._live, draws_text = _live(screen, gauge, is_text)
        self._writer = None if draws_text or not is_text else AnswerStream(screen.out)
        # Two that write to one terminal would disturb each other.
        is_shared = self._writer is not None and screen.out.isatty()
        self._stays = draws_text or (gauge is not None and not is_shared)
        self._is_waiting = True

    def start(self) -> None:
        """Show that something is going on."""
        if self._live is not None:
            if self._screen.is_lively:
                self._live.show_status(_WAITING)
            self._live.start()

    def push(self, text: str) -> None:
        """Show a piece of the answer."""
        if self._is_waiting:
            self._end_wait()
        if self._live is not None:
            self._live.push(text)
        if self._writer is not None:
            self._writer.write(text)

    def progress(self, done: int, total: int) -> None:
        """Show how much of the documents has been read."""
        if self._live is not None and self._screen.is_lively:
            self._live.show_status(f"{_WAITING} {done:,} of {total:,} blocks")

    def note(self, text: str) -> None:
        """A line for the person, on stderr."""
        if self._live is not None and self._screen.is_lively:
            self._live.note(text)
        else:
            self._screen.note(text)

    def end(self) -> None:
        """Leave the whole text on the screen, its last line ended."""
        try:
            if self._live is not None:
                self._live.stop()
        finally:
            if self._writer is not None:
                self._writer.end()

    def _end_wait(self) -> None:
        self._is_waiting = False
        if self._live is not None:
            self._live.show_status("")
            if not self._stays:
                self._live.stop()
                self._live = None


def _live(screen: Screen, gauge: Gauge | None, is_text: bool) -> tuple[Live | None, bool]:
    """What draws, if anything can, and whether it draws the text too."""
    draws_text = is_text and screen.out.isatty() and (not screen.plain or gauge is not None)
    if not draws_text and not screen.is_lively:
        return None, False
    from nazx_cli.ui.area import can_draw
    from nazx_cli.ui.live import Live
    from nazx_cli.ui.stream import MarkdownStream, PlainStream

    shown = gauge if screen.is_lively else None
    if draws_text and can_draw(screen.out):
        stream = PlainStream() if screen.plain else MarkdownStream()
        return Live(screen.out, stream, shown), True
    if screen.is_lively and can_draw(screen.err):
        return Live(screen.err, None, shown), False
    return None, False
