"""How much memory there is and how much is in use, read from the system now."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_MEMINFO = _PROC / "meminfo"
_GROUPS = Path("/sys/fs/cgroup")
_GROUP_FILES = (  # a control group's limit, what it takes, and what of that is given back first
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # version 1
)


@dataclass(frozen=True)
class Reading:
    """Bytes on one device: ``used`` by this process, ``free`` for it to take, ``total``.

    ``kind`` names what ``used`` is: VRAM, memory or resident memory. ``reserved`` is what torch
    holds on a CUDA device, given out or not; ``in_use`` what all processes take of the device.
    """

    device: str
    used: int
    free: int
    total: int
    kind: str = "memory"
    reserved: int = 0
    in_use: int = 0


def read_memory(device: str) -> Reading:
    """A reading of ``device`` (cpu, cuda, cuda:N or mps).

    On a CPU ``used`` is the process's resident memory; ``free`` and ``total`` are no more than
    what a control group (a container, say) leaves it. Zeros where the system does not tell.
    """
    kind = device.partition(":")[0]
    if kind == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info(device)
        used, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
        # What torch has reserved and not given out is ours to take as well.
        spare = reserved - used
        return Reading(device, used, free + spare, total, "VRAM", reserved, total - free)
    if kind == "mps":
        import torch

        total, used = torch.mps.recommended_max_memory(), torch.mps.driver_allocated_memory()
        return Reading(device, used, max(total - used, 0), total, in_use=used)
    table = _table(_MEMINFO)
    total = table.get("MemTotal", 0) or _physical_memory()
    free = table.get("MemAvailable", total)
    used = resident_bytes()
    for limit, taken in _group_limits():
        free, total = min(free, max(0, limit - taken)), min(total, limit)
    return Reading(device, used, free, total, "resident memory", in_use=max(total - free, used))


def resident_bytes(pid: int | None = None) -> int:
    """The resident memory of this process or of ``pid``; 0 where there is none such."""
    if _PROC.is_dir():
        return _table(_PROC / str(pid or "self") / "status").get("VmRSS", 0)
    return _resident_by_ps(pid or os.getpid())


def peak_resident_bytes(pid: int | None = None) -> int:
    """The highest that ``resident_bytes`` has been since the start or the last reset."""
    return _table(_PROC / str(pid or "self") / "status").get("VmHWM", 0)


def processor_seconds(pid: int) -> float:
    """What a process has computed so far, on all its threads (Linux only, else 0)."""
    told = _text(_PROC / str(pid) / "stat")
    if not told:
        return 0.0
    user, system = told.rpartition(")")[2].split()[11:13]  # after the name, which may be anything
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def reset_peak() -> None:
    """Start ``peak_resident_bytes`` anew (Linux only)."""
    (_PROC / "self" / "clear_refs").write_text("5")


def _resident_by_ps(pid: int) -> int:
    """For systems that have no /proc, macOS among them."""
    ps = shutil.which("ps")
    if ps is None:
        return 0
    command = [ps, "-o", "rss=", "-p", str(pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return int(found) * 1024 if found.isdigit() else 0


def _group_limits() -> Iterator[tuple[int, int]]:
    """Of each control group that this process is in and that has one (Linux): its limit, and what
    it takes of that and would not give back."""
    for row in _text(_PROC / "self" / "cgroup").splitlines():
        _, kinds, path = row.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        base = _GROUPS / "memory" if kinds else _GROUPS
        limit, taken, spare = _GROUP_FILES[bool(kinds)]
        folder = base / path.lstrip("/")  # which a container may see as the top
        for group in (folder, *folder.parents[: len(folder.parts) - len(base.parts)]):
            most, now = _text(group / limit).strip(), _text(group / taken).strip()
            if most.isdecimal() and now.isdecimal():
                told = dict(line.split() for line in _text(group / "memory.stat").splitlines())
                yield int(most), int(now) - int(told.get(spare, 0))


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def _table(path: Path) -> dict[str, int]:
    """``Name: N kB`` lines in bytes; empty where there is no such file."""
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if row[2:] == ["kB"]}


def _text(path: Path) -> str:
    """What a file of the system says; nothing where there is no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
