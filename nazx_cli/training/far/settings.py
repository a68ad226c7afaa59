"""What a run of ``nazx tune --far`` was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nazx_cli.training.state import read_asked
from nazx_cli.training.trainer import Schedule

ASKED_FILE = "far.json"


@dataclass(frozen=True)
class FarSettings:
    """What was asked for.

    model, revision  the base, by the name that it is loaded by
    sources          files, folders and globs of long texts
    far              the kind of memory
    rank             of what it adds: see ``model.far``
    window, around   of ``inattention``, and
    segment, update  of ``infini``: see there
    live             remembers nothing but the live text, as a control
    epochs           passes over the texts, where the schedule has no steps or minutes
    """

    model: str
    sources: tuple[str, ...]
    schedule: Schedule = field(default_factory=Schedule)
    revision: str | None = None
    far: str = "inattention"
    rank: int = 32
    window: int = 4
    around: int = 32
    segment: int = 512
    update: str = "linear"
    live: bool = False
    held_share: int = 16
    epochs: float = 1.0
    device: str = "auto"
    dtype: str = "auto"

    def described(self) -> dict[str, Any]:
        """The memory in the words of ``config.json``, which reads what its kind has."""
        names = ("rank", "window", "around", "segment", "update")
        return {"far": self.far, **{f"far_{name}": getattr(self, name) for name in names}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FarSettings:
        """From ``far.json``; ``KeyError`` or ``TypeError`` where it is broken."""
        values = {**data, "schedule": Schedule(**data["schedule"])}
        return cls(**{**values, "sources": tuple(data["sources"])})


def read_settings(out: Path) -> FarSettings:
    """What the run in ``out`` was asked for; ``UsageError`` where there is none."""
    return read_asked(out / ASKED_FILE, FarSettings.from_json)
