"""A terminal without a process: what is written to it, and what it then shows."""

from __future__ import annotations

import io

import pyte

from nazx_cli.ui.terminal.live import Area


class Board(io.StringIO):
    """A stream that says it is a terminal and shows what is written on a screen of its own.

    ``writes`` keeps every write as it came.
    """

    encoding = "utf-8"

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        super().__init__()
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=0.5)
        self._stream = pyte.Stream(self.screen)
        self.writes: list[str] = []

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.writes.append(text)
        self._stream.feed(text.replace("\r\n", "\n").replace("\n", "\r\n"))
        return len(text)

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)

    @property
    def shown(self) -> list[str]:
        """The lines on the screen down to the last that is not blank."""
        return _trimmed([line.rstrip() for line in self.screen.display])

    @property
    def everything(self) -> list[str]:
        """The lines that scrolled away, and those on the screen."""
        above = [
            "".join(row[at].data for at in range(self.screen.columns)).rstrip()
            for row in self.screen.history.top
        ]
        return _trimmed(above + [line.rstrip() for line in self.screen.display])

    def colors(self, row: int) -> set[str]:
        """The colours of what stands in a row."""
        cells = self.screen.buffer[row]
        return {cells[at].fg for at in range(self.screen.columns) if cells[at].data.strip()}


class BoardArea(Area):
    """An area on a board, which has no file descriptor to ask for its size."""

    def __init__(self, board: Board) -> None:
        super().__init__(board)
        self._board = board

    @property
    def size(self) -> tuple[int, int]:
        return self._board.screen.columns, self._board.screen.lines


def _trimmed(lines: list[str]) -> list[str]:
    while lines and not lines[-1]:
        lines.pop()
    return lines
