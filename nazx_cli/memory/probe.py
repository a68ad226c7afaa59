"""How much memory there is and how much is in use, read from the system now."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Reading:
    """Bytes on one device: ``used`` by this process, ``free`` for it to take, ``total``."""

    device: str
    used: int
    free: int
    total: int


def read_memory(device: str) -> Reading:
    """A reading of ``device`` (cpu, cuda, cuda:N or mps).

    On a CPU ``used`` is the process's resident memory. Zeros where the system does not tell.
    """
    kind = device.partition(":")[0]
    if kind == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info(device)
        # What torch has reserved and not given out is ours to take as well.
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return Reading(device, torch.cuda.memory_allocated(device), free + spare, total)
    if kind == "mps":
        import torch

        total, used = torch.mps.recommended_max_memory(), torch.mps.driver_allocated_memory()
        return Reading(device, used, max(total - used, 0), total)
    table = _table(_MEMINFO)
    total = table.get("MemTotal", 0) or _physical_memory()
    return Reading(device, resident_bytes(), table.get("MemAvailable", total), total)


def resident_bytes() -> int:
    """The process's resident memory."""
    return _table(_STATUS).get("VmRSS", 0)


def peak_resident_bytes() -> int:
    """The highest that ``resident_bytes`` has been since the start or the last reset."""
    return _table(_STATUS).get("VmHWM", 0)


def reset_peak() -> None:
    """Start ``peak_resident_bytes`` anew (Linux only)."""
    Path("/proc/self/clear_refs").write_text("5")


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def _table(path: Path) -> dict[str, int]:
    """``Name: N kB`` lines in bytes; empty where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    rows = (line.split() for line in lines)
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if row[2:] == ["kB"]}
