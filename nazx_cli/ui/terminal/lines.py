"""Progress in plain lines, for long work whose output goes to a file or a pipe."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

_FIRST, _BETWEEN = 2.0, 15.0  # seconds until the first line, and between two


class ProgressLines:
    """Tells ``say`` how far work is and how long it will take, now and then; used as a ``Bar``."""

    def __init__(self, say: Callable[[str], None], label: str) -> None:
        self._say, self._label = say, label
        self._stage = ""
        self._began = self._told = monotonic()

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, *values: str | int) -> None:
        """Take in (done, total), or (stage, done, total)."""
        *stage, done, total = values
        name = str(stage[0]) if stage else self._label
        now = monotonic()
        if name != self._stage:
            self._stage, self._began, self._told = name, now, now - _BETWEEN + _FIRST
        share = int(done) / max(1, int(total))
        if now - self._told < _BETWEEN or not 0 < share < 1:
            return
        self._told = now
        left = (now - self._began) * (1 - share) / share
        self._say(f"{name}: {100 * share:.0f} %, {_duration(left)} left")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {minutes / 60:.1f} h"
