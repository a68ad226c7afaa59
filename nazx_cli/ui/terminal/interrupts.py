"""What Ctrl-C does: where nothing can be lost it leaves at once, else ``KeyboardInterrupt`` is
raised; and it is never swallowed."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 130
"""The exit code."""
TERMINATED = 143
"""That of SIGTERM."""

_NAP = 0.05  # seconds


class TerminatedError(KeyboardInterrupt):
    """What SIGTERM raises where it is to be as Ctrl-C is."""


def leave(number: int, frame: FrameType | None) -> None:
    """A handler for when the process has begun nothing yet, or ended all."""
    os._exit(INTERRUPTED)


def handle_interrupts(handler: Any) -> None:
    """Have Ctrl-C call ``handler``, where it is this process's to handle: a shell has commands in
    the background ignore it."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C raises ``KeyboardInterrupt`` in the body, and does what it did before after it."""
    hook, handler = sys.unraisablehook, signal.getsignal(signal.SIGINT)
    sys.unraisablehook = _raise_again
    handle_interrupts(signal.default_int_handler)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        handle_interrupts(handler)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM is as Ctrl-C in the body: what is to be saved is saved. The exit code differs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise TerminatedError


def _raise_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised in a finalizer or a callback: Ctrl-C must not be lost there."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        ended = isinstance(unraisable.exc_value, TerminatedError)
        number = signal.SIGTERM if ended else signal.SIGINT
        # From a thread: what is raised in here would be dropped too.
        threading.Timer(0.01, _thread.interrupt_main, (number,)).start()
    else:
        sys.__unraisablehook__(unraisable)


@contextmanager
def importing() -> Iterator[None]:
    """While libraries are imported, some of which swallow what is raised or turn it into another
    error: an interrupt ends as one all the same."""
    with InterruptGuard() as guard:
        try:
            yield
        except Exception:
            if guard.came:
                raise KeyboardInterrupt from None
            raise
        if guard.came:
            raise KeyboardInterrupt


class InterruptGuard:
    """While entered, decides what Ctrl-C does.

    With ``defer`` off it raises KeyboardInterrupt as usual. With ``defer`` on, the first one
    only sets ``pending``, so that the work in hand can end cleanly; the second one raises.
    ``came`` tells whether there was any.
    """

    def __init__(self, *, defer: bool = False) -> None:
        self.defer = defer
        self.pending = self.came = False
        self._previous: Any = None

    def __enter__(self) -> InterruptGuard:
        self._previous = signal.getsignal(signal.SIGINT)
        handle_interrupts(self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            handle_interrupts(self._previous)

    def wait(self, seconds: float) -> bool:
        """Sleep, not beyond a Ctrl-C that is deferred; whether one is pending."""
        end = time.monotonic() + seconds
        while not self.pending and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _NAP))  # one sleep would not end before its time
        return self.pending

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        if self.defer and not self.pending:
            self.pending = True
            return
        raise KeyboardInterrupt
