"""What is typed while something is drawn: kept for the next prompt, not shown in between."""

from __future__ import annotations

import os
import sys
from typing import Any

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]


class NoEcho:
    """While entered, the terminal does not show what is typed; Ctrl-C works as ever."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    def __enter__(self) -> NoEcho:
        if termios is not None and sys.stdin is not None and sys.stdin.isatty():
            try:
                # A job in the background would be stopped for changing its terminal.
                if os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
                    return self
                self._before = termios.tcgetattr(sys.stdin)
                silent = list(self._before)
                silent[3] &= ~termios.ECHO
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, silent)
            except (termios.error, OSError, ValueError):
                self._before = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None and termios is not None:
            before, self._before = self._before, None
            try:
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
            except (termios.error, OSError, ValueError):
                return
