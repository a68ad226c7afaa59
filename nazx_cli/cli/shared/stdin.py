"""What is piped in."""

from __future__ import annotations

import os
import select
import stat
import sys

from nazx_cli.documents.text import decode
from nazx_cli.errors import DocumentError
from nazx_cli.ui.terminal.screen import Screen

_PATIENCE = 2.0  # seconds without input until the person is told what is waited for


def piped_text(screen: Screen, *, wanted: bool) -> str | None:
    """Everything on standard input; None where nothing is piped in.

    A terminal is read only where ``wanted`` (``--file -``). Blank input counts as none.
    """
    if sys.stdin is None or sys.stdin.closed:
        return None
    if not wanted and not _is_piped():
        return None
    _mention_waiting(screen)
    try:
        text = decode(sys.stdin.buffer.read())
    except DocumentError as error:
        raise DocumentError(
            f"standard input {error.message}", error.hint or "pipe text in"
        ) from None
    return text if text.strip() else None


def _is_piped() -> bool:
    """True for pipes, files and sockets; not for terminals and devices such as /dev/null."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):  # no descriptor behind it, as in tests
        return not sys.stdin.isatty()
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _mention_waiting(screen: Screen) -> None:
    try:
        ready, _, _ = select.select([sys.stdin], [], [], _PATIENCE)
    except (OSError, ValueError):  # no descriptor behind it, or a system that cannot tell
        return
    if not ready:
        screen.note("waiting for the end of the text on stdin (Ctrl-D ends it)")
