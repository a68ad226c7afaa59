"""The processor of this machine, as Linux tells of it; no torch here."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor_name() -> str:
    """Its name, as Linux or else as Python knows it."""
    return _told("model name") or platform.processor() or platform.machine()


def processor_flags() -> frozenset[str]:
    """Instruction sets as Linux lists them; empty elsewhere."""
    return frozenset((_told("flags") or _told("Features")).split())


def multiplies_bfloat16() -> bool:
    """Whether products of bfloat16 take no detour over float32."""
    return not processor_flags().isdisjoint(("avx512_bf16", "bf16"))


def multiplies_int8() -> bool:
    """Whether sums of products of int8 are one instruction, exact in 32 bits: VNNI or AMX."""
    return not processor_flags().isdisjoint(("avx512_vnni", "avx_vnni", "amx_int8"))


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _told(key: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")
