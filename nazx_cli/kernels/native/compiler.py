"""Compiling a C file of the package with the system's compiler, once for each machine."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

_COMPILERS = ("cc", "gcc", "clang")
_COMMON = ("-O3", "-fno-math-errno", "-ffp-contract=fast", "-w", "-shared", "-fPIC")
_NATIVE = (("-march=native",), ("-mcpu=native",), ())  # x86, ARM, neither
_TIMEOUT = 120  # seconds; a compiler that hangs is as good as none


def compile_library(source: Path, defines: Mapping[str, int]) -> ctypes.CDLL | None:
    """``source``, with the headers beside it, compiled for this machine with ``-DNAME=value``;
    None where that cannot be had.

    The result is kept in ``cache_folder`` under a name made of all that it depends on.
    """
    flags = tuple(f"-D{name}={value}" for name, value in sorted(defines.items()))
    compiler = find_compiler()
    if compiler is None:
        return None
    texts = (path.read_text(encoding="utf-8") for path in (source, *_headers(source)))
    depends = (*texts, *flags, *_COMMON, compiler, _machine())
    key = hashlib.sha256("\0".join(depends).encode()).hexdigest()[:32]
    try:
        made = cache_folder() / f"{source.stem}-{key}.so"
        if not made.is_file():
            made.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _compile(compiler, source, flags, made)
        return ctypes.CDLL(str(made))
    except (OSError, subprocess.SubprocessError):
        return None


def _headers(source: Path) -> list[Path]:
    return sorted(source.parent.glob("*.h"))


def cache_folder() -> Path:
    """Where compiled libraries are kept; they can be deleted at any time."""
    if named := os.environ.get("NAZX_KERNELS"):
        return Path(named)
    if home := os.environ.get("NAZX_HOME"):
        return Path(home) / "kernels"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nazx"


def _compile(compiler: str, source: Path, flags: tuple[str, ...], made: Path) -> None:
    """Compile to a file of its own and rename it: no process loads a half-written library."""
    handle, name = tempfile.mkstemp(dir=made.parent, suffix=".so")
    os.close(handle)
    try:
        for attempt, native in enumerate(_NATIVE, 1):
            done = subprocess.run(
                [compiler, *_COMMON, *native, *flags, str(source), "-o", name, "-lm"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT,
                check=attempt == len(_NATIVE),
            )
            if done.returncode == 0:
                break
        Path(name).replace(made)
    finally:
        Path(name).unlink(missing_ok=True)


def find_compiler() -> str | None:
    """Path of the C compiler: ``CC``, or the system's; None where there is none."""
    if named := os.environ.get("CC"):
        return shutil.which(named)
    return next((found for name in _COMPILERS if (found := shutil.which(name))), None)


@lru_cache(maxsize=1)
def _machine() -> str:
    """What tells processors apart: code for one may use instructions that another lacks."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.node()}"
    told = {line for line in lines if line.lower().startswith(("model name", "flags", "features"))}
    return platform.machine() + "\n".join(sorted(told))
