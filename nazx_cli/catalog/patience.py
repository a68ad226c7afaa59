"""How long a network is waited for: for an answer, and for bytes that come too slowly.

The client's own time limits are for each read: a server that sends a byte now and then never
meets them. So what has come is looked at from outside, over a window of time.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from nazx_cli.errors import ModelUnavailableError

T = TypeVar("T")

LEAST_SPEED = 1_000
"""Bytes a second below which a download is given up."""

_POLL_SECONDS = 0.1
_LONGER = "try again; a slow network is waited for longer with HF_HUB_DOWNLOAD_TIMEOUT=60"
_WINDOWS = 3  # of the client's time limit for one read


class UnreachableError(ModelUnavailableError):
    """Nobody answered, or bytes came too slowly."""


def window() -> float:
    """Seconds that a download may stay below ``LEAST_SPEED``, and that an answer may take: three
    times the client's ``HF_HUB_DOWNLOAD_TIMEOUT``, which is 10."""
    from huggingface_hub import constants

    chosen = os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", "")
    return _WINDOWS * float(chosen if chosen.isdecimal() else constants.HF_HUB_DOWNLOAD_TIMEOUT)


class Pace:
    """Told what has come so far, raises where it is less than ``least`` bytes more than
    ``seconds`` ago; ``what`` is waited for."""

    def __init__(self, what: str, seconds: float, least: float) -> None:
        self._what, self._seconds, self._least = what, seconds, least
        self._seen: deque[tuple[float, int]] = deque()

    def see(self, nbytes: int) -> None:
        """``nbytes`` have come until now."""
        now = time.monotonic()
        self._seen.append((now, nbytes))
        while len(self._seen) > 1 and self._seen[1][0] <= now - self._seconds:
            self._seen.popleft()
        since, before = self._seen[0]
        if since <= now - self._seconds and nbytes - before < self._least:
            raise UnreachableError(
                f"{self._what}: only {nbytes - before:,} bytes came in {self._seconds:g} seconds",
                _LONGER,
            )


def until(what: str, seconds: float) -> Callable[[], None]:
    """Raises once ``seconds`` have passed: ``what`` is waited for."""
    end = time.monotonic() + seconds

    def look() -> None:
        if time.monotonic() > end:
            raise UnreachableError(f"{what}: no answer within {seconds:g} seconds", _LONGER)

    return look


def patiently(work: Callable[[], T], look: Callable[[], None]) -> T:
    """What ``work`` returns or raises; it is done in a thread, and ``look`` called meanwhile.

    Where ``look`` raises, or Ctrl-C is pressed, the thread is left to itself: it may be waiting
    for bytes that never come.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # raised where it is waited for
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_SECONDS)
        if thread.is_alive():
            look()
    if failure:
        raise failure[0]
    return result[0]
