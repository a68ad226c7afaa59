"""One key, read as it is pressed."""

from __future__ import annotations

import os
import sys

try:
    import termios
    import tty
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]


def read_key() -> str:
    """The next key on the terminal that stdin is: its character, ``\\n`` for Enter, empty at the
    end of input or for a key that has none. Ctrl-C raises ``KeyboardInterrupt``."""
    if termios is None:
        import msvcrt

        key = msvcrt.getwch()
        if key == "\x03":
            raise KeyboardInterrupt
        return "\n" if key == "\r" else str(key)
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        # Ctrl-C stays an interrupt, and what was typed before goes: it was meant for another.
        tty.setcbreak(number, termios.TCSAFLUSH)
        typed = os.read(number, 16).decode(errors="replace")  # a whole escape sequence
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
    return "\n" if typed[:1] in ("\r", "\n") else typed if len(typed) == 1 else ""
