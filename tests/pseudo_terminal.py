"""A real ``nazx`` process in a real terminal, and what that terminal shows."""

from __future__ import annotations

import os
import re
import signal
import sys
import time

import pexpect
import pyte

PROMPT = ">>>$"


def _environment() -> dict[str, str]:
    """Ours, but for a width of our own terminal, such as tests in several processes are told."""
    kept = {name: text for name, text in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return {**kept, "TERM": "xterm-256color"}


class Terminal:
    """A process in a terminal; ``timeout`` is in seconds, for each wait."""

    def __init__(
        self,
        *arguments: str,
        columns: int = 80,
        rows: int = 30,
        timeout: float = 30,
        screen: pyte.Screen | None = None,
    ) -> None:
        self.screen = screen or pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self.screen)
        self._rows, self._timeout = rows, timeout
        self.process = pexpect.spawn(
            sys.executable,
            ["-m", "nazx_cli", *arguments],
            encoding="utf-8",
            dimensions=(rows, columns),
            timeout=timeout,
            env=_environment(),
        )
        self.raw = ""

    @property
    def text(self) -> str:
        """What the screen shows, without blank lines."""
        return "\n".join(line.rstrip() for line in self.screen.display if line.strip())

    def until(self, pattern: str) -> str:
        """Read on until the screen's text matches; the text."""
        end = time.monotonic() + self._timeout
        while not re.search(pattern, self.text, re.MULTILINE):
            waits = time.monotonic() < end and not self.process.closed
            assert waits, f"no {pattern!r} in:\n{self.text}"
            self.read()
        return self.text

    def send(self, keys: str) -> None:
        self.process.send(keys)

    def enter(self, line: str, pattern: str = PROMPT) -> str:
        """Type a line; what is shown once the prompt (or ``pattern``) is back after it."""
        self.send(f"{line}\r")
        return self.until(rf">>> {re.escape(line)}\n(.*\n)*{pattern}")

    def resize(self, columns: int) -> None:
        self.screen.resize(self._rows, columns)
        self.process.setwinsize(self._rows, columns)

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.kill(signal.SIGKILL)
        self.process.close(force=True)

    def end(self) -> int:
        """Wait until the process has ended; its exit code."""
        end = time.monotonic() + self._timeout
        try:
            while time.monotonic() < end:
                self.read()
        except pexpect.EOF:
            pass
        self.process.close()
        return int(self.process.exitstatus)

    def read(self) -> None:
        """Show what has come in; ``pexpect.EOF`` where nothing will any more."""
        try:
            text = self.process.read_nonblocking(4096, timeout=0.2)
        except pexpect.TIMEOUT:
            return
        self.raw += text
        self._stream.feed(text)
        if "\x1b[6n" in text:  # prompt-toolkit asks where the cursor is
            cursor = self.screen.cursor
            self.process.send(f"\x1b[{cursor.y + 1};{cursor.x + 1}R")
