"""Approximations of full attention, one file each, by the names that ``nazx eval
--approximation`` takes. A new one is one file and one line here."""

from __future__ import annotations

from nazx_cli.errors import UsageError
from nazx_cli.evaluation.approximations.base import Approximation
from nazx_cli.evaluation.approximations.hip import Hip, SureHip
from nazx_cli.evaluation.approximations.landmark import Landmark
from nazx_cli.evaluation.approximations.slots import Slots
from nazx_cli.evaluation.approximations.star import Star

_TABLE: dict[str, type[Approximation]] = {
    each.name: each for each in (Star, Landmark, Hip, SureHip, Slots)
}


def approximation_of(text: str) -> Approximation:
    """The one that ``text`` names with its settings, as ``star:512``; ``UsageError`` for none."""
    name, *settings = text.split(":")
    if name not in _TABLE:
        raise UsageError(
            f"there is no approximation {name!r}", f"choose one of {', '.join(_TABLE)}"
        )
    kind = _TABLE[name]
    if len(settings) <= len(kind.least) and all(each.isdecimal() for each in settings):
        numbers = [int(each) for each in settings]
        if all(a <= b for a, b in zip(kind.least, numbers, strict=False)):
            return kind(*numbers)
    bounds = ", ".join(f"{a:,}" for a in kind.least)
    raise UsageError(f"{text!r} does not set {name}", f"write {kind.form}, from {bounds} on")
