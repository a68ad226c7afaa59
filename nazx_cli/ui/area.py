"""The last lines of a terminal, drawn anew as often as one likes; what is final goes above.

The cursor rests, hidden, at the beginning of the area. So whatever a resize does to the lines
below it, one erasure from there on removes all of them.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from nazx_cli.ui.stream import fold

_SIZE = (80, 24)  # where the terminal does not tell

# Terminals that know the first pair show all between them at once; others ignore it.
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_CUT, _WRAP = "\x1b[?7l", "\x1b[?7h"  # what happens to a line that is wider than we think
_ERASE_LINE, _ERASE_BELOW = "\x1b[K", "\x1b[J"


def can_draw(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that understands cursor movements."""
    if not stream.isatty():
        return False
    console = Console(file=stream)
    return not console.is_dumb_terminal and not console.legacy_windows


class Area:
    """An area at the end of what ``out`` shows. One thread at a time may use it.

    ``size`` tells columns and rows; by default the terminal itself does.
    """

    def __init__(self, out: TextIO, size: Callable[[], tuple[int, int]] | None = None) -> None:
        self._out = out
        # It only turns text into sequences, which go out in one write.
        self._console = Console(file=io.StringIO(), force_terminal=True, highlight=False)
        self._size = size or self._ask_size
        self._shown: tuple[tuple[int, int], list[str]] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal now."""
        return self._size()

    def draw(self, final: Sequence[Text], lines: Sequence[Text]) -> None:
        """Print ``final`` once and for all, and below it show ``lines``.

        A line too wide goes on in the next row; of more rows than there is room for, the last
        are shown. Nothing is written where nothing has changed.
        """
        size = self.size
        rows = [row for line in lines for row in fold(line, size[0])]
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
        above = "".join(f"{self._ansi(line)}\r\n" for line in final)
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

    def _ask_size(self) -> tuple[int, int]:
        try:
            columns, rows = os.get_terminal_size(self._out.fileno())
        except (OSError, ValueError):
            return _SIZE
        return columns or _SIZE[0], rows or _SIZE[1]


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
