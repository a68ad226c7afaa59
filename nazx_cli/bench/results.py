"""What a benchmark gives: rows of figures, and where they were measured; written as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from nazx_cli.bench.timing import paired_ratio
from nazx_cli.errors import NazxError

_PACKAGES = ("nazx", "torch", "transformers", "llama-cpp-python")


@dataclass(frozen=True)
class Spread:
    """The figures of one side, in the order they were taken."""

    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return float(median(self.runs))

    @property
    def low(self) -> float:
        """The least."""
        return min(self.runs)

    @property
    def high(self) -> float:
        """The greatest."""
        return max(self.runs)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "median": self.median,
            "low": self.low,
            "high": self.high,
            "runs": list(self.runs),
        }


@dataclass(frozen=True)
class Row:
    """One figure of ours, with a peer's beside it where there is one.

    ``tokens`` is the context's length, ``unit`` s (seconds), bytes, or "" for plain numbers.
    ``theirs`` None with a ``peer`` named means that the peer could not be run; ``note`` says
    why. ``kernel`` is ``compiled`` or ``portable`` where a memory layout
    attended. ``details`` are further figures; a name that ends in ``_seconds`` or ``_bytes`` gives
    the unit.
    """

    workload: str
    measure: str
    tokens: int
    unit: str
    dtype: str
    ours: Spread
    layout: str = ""
    kernel: str = ""
    peer: str = ""
    theirs: Spread | None = None
    note: str = ""
    details: Mapping[str, float | int] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Their median over ours: how many times less ours takes."""
        if self.theirs is None or not self.ours.median:
            return None
        return self.theirs.median / self.ours.median

    @property
    def paired_ratio(self) -> float | None:
        """Median of the ratios round by round."""
        return None if self.theirs is None else paired_ratio(self.ours.runs, self.theirs.runs)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "workload": self.workload,
            "measure": self.measure,
            "tokens": self.tokens,
            "unit": self.unit,
            "dtype": self.dtype,
            "layout": self.layout,
            "kernel": self.kernel,
            "ours": self.ours.to_dict(),
            "peer": self.peer,
            "theirs": None if self.theirs is None else self.theirs.to_dict(),
            "ratio": self.ratio,
            "paired_ratio": self.paired_ratio,
            "note": self.note,
            "details": dict(self.details),
        }


@dataclass(frozen=True)
class Environment:
    """Where figures were measured; ``versions`` has "" for what is not installed."""

    device: str
    cpu: str
    threads: int
    dtype: str
    versions: Mapping[str, str]

    @classmethod
    def current(cls, dtype: str, device: str = "cpu") -> Environment:
        """This process on this machine; ``dtype`` auto is told by what it comes to."""
        import torch

        from nazx_cli.checkpoint.load import resolve_dtype

        dtype = str(resolve_dtype(dtype, torch.device(device))).removeprefix("torch.")
        versions = {"python": platform.python_version()}
        versions |= {name: _version(name) for name in _PACKAGES}
        return cls(device, _cpu_model(), torch.get_num_threads(), dtype, versions)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "device": self.device,
            "cpu": self.cpu,
            "threads": self.threads,
            "dtype": self.dtype,
            "versions": dict(self.versions),
        }


@dataclass(frozen=True)
class Report:
    """Everything of one run; not ``complete`` where it was interrupted."""

    environment: Environment
    rows: Sequence[Row]
    complete: bool = True

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "environment": self.environment.to_dict(),
            "complete": self.complete,
            "rows": [row.to_dict() for row in self.rows],
        }


def one(value: float) -> Spread:
    """A figure that is taken once."""
    return Spread((float(value),))


def write_report(report: Report, path: Path) -> None:
    """Write ``report`` as JSON to ``path``, whole or not at all."""
    text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n"
    scratch: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            scratch = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # As the umask has it for new files: temporary ones are closed to everybody else.
        scratch.chmod(0o666 & ~_umask())
        scratch.replace(path)
    except OSError as error:
        if scratch is not None:
            scratch.unlink(missing_ok=True)
        raise NazxError(
            f"cannot write {path}: {error.strerror or error}", "name a file you may write to"
        ) from None


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _version(name: str) -> str:
    """The installed version of ``name``; NazX run from its source knows its own."""
    try:
        return version(name)
    except PackageNotFoundError:
        from nazx_cli import __version__

        return __version__ if name == "nazx" else ""


def _cpu_model() -> str:
    """The processor's name, as Linux or else as Python knows it."""
    if sys.platform == "linux":
        try:
            text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        for line in text.splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
