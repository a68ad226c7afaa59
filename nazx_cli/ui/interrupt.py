"""Ctrl-C while an answer is made: stop between two tokens, not in the middle of one."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class InterruptGuard:
    """While entered, decides what Ctrl-C does.

    With ``defer`` off it raises KeyboardInterrupt as usual. With ``defer`` on, the first one
    only sets ``pending``, so that the work in hand can end cleanly; the second one raises.
    """

    def __init__(self) -> None:
        self.defer = False
        self.pending = False
        self._previous: object = None

    def __enter__(self) -> InterruptGuard:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.getsignal(signal.SIGINT)
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.defer and not self.pending:
            self.pending = True
            return
        raise KeyboardInterrupt
