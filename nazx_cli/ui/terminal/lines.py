"""Progress in plain lines, for long work whose output goes to a file or a pipe."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

_FIRST, _BETWEEN = 2.0, 15.0  # seconds until the first line, and between two


class Pace:
    """How far work is: the ``name`` of its stage, and the ``share`` of that which is done."""

    def __init__(self, label: str) -> None:
        self._label = self.name = label
        self.share = 0.0
        self.is_known = False
        """Whether it is known how much there is to do."""
        self._began = monotonic()

    def update(self, *values: str | int) -> bool:
        """Take in (done, total), or (stage, done, total); whether that is another stage."""
        *stage, done, total = values
        name = str(stage[0]) if stage else self._label
        begins = name != self.name
        if begins:
            self.name, self._began = name, monotonic()
        self.is_known = float(total) > 0
        self.share = min(1.0, float(done) / float(total)) if self.is_known else 0.0
        return begins

    @property
    def left(self) -> str:
        """How long it will take yet; of what has begun."""
        return roughly((monotonic() - self._began) * (1 - self.share) / self.share)


class ProgressLines:
    """Tells ``say`` how far work is and how long it will take, now and then; used as a ``Bar``."""

    def __init__(self, say: Callable[[str], None], label: str) -> None:
        self._say, self._pace = say, Pace(label)
        self._told = monotonic() - _BETWEEN + _FIRST

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, *values: str | int) -> None:
        """Take in (done, total), or (stage, done, total)."""
        now = monotonic()
        if self._pace.update(*values):
            self._told = now - _BETWEEN + _FIRST
        if now - self._told < _BETWEEN or not 0 < self._pace.share < 1:
            return
        self._told = now
        self._say(f"{self._pace.name}: {100 * self._pace.share:.0f} %, {self._pace.left} left")


def roughly(seconds: float) -> str:
    """``about 5 s``, ``about 3 min``, ``about 1.5 h``."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {minutes / 60:.1f} h"
