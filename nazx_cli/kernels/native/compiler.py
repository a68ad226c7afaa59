"""Compiling a C file of the package with the system's compiler, once for each machine.

What is compiled runs in this process, so that it is loaded from files only that this user alone
can have written: see ``private``. Where the place to keep it is not such, it is compiled for this
process alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from nazx_cli.kernels.native.private import check_file, private_folder

_COMPILERS = ("cc", "gcc", "clang")
_COMMON = ("-O3", "-fno-math-errno", "-ffp-contract=fast", "-w", "-shared", "-fPIC")
_NATIVE = (("-march=native",), ("-mcpu=native",), ())  # x86, ARM, neither
_TIMEOUT = 120  # seconds; a compiler that hangs is as good as none
_SCRATCH = "making-"
_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_DESCRIPTORS = Path("/proc/self/fd")


def target() -> str:
    """The processor to compile for, as a compiler's ``-march`` has it: ``NAZX_MARCH``, by which
    tests and measurements get the code of lesser processors; empty: this one."""
    return os.environ.get("NAZX_MARCH", "")


def compile_library(
    source: Path, defines: Mapping[str, int], symbols: Sequence[str], march: str = ""
) -> ctypes.CDLL | None:
    """``source``, with the headers beside it, compiled for the ``target`` march with
    ``-DNAME=value``; None where that cannot be had.

    The result, which must have the functions ``symbols``, is kept in ``cache_folder`` under a
    name made of all that it depends on. One that is there and cannot be used is made again.
    """
    flags = tuple(f"-D{name}={value}" for name, value in sorted(defines.items()))
    compiler = find_compiler()
    if compiler is None:
        return None
    texts = (path.read_text(encoding="utf-8") for path in (source, *_headers(source)))
    depends = (*texts, *flags, *_COMMON, march, compiler, _machine())
    key = hashlib.sha256("\0".join(depends).encode()).hexdigest()[:32]
    name = f"{source.stem}-{key}.so"
    command = (compiler, *_COMMON, *flags, str(source))
    processors = ((f"-march={march}",),) if march else _NATIVE
    try:
        try:
            made = kept_folder() / name
        except OSError:
            with tempfile.TemporaryDirectory(prefix="nazx-") as folder:
                return _made(command, Path(folder) / name, symbols, processors)
        return _load(made, symbols) or _made(command, made, symbols, processors)
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


def kept_folder() -> Path:
    """``cache_folder``, made where it is missing; ``OSError`` where libraries cannot be kept in
    it, for others can write there, or it cannot be used at all."""
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return private_folder(folder)


def unkept() -> str:
    """Why each process has to compile anew, in one line; empty: what it compiles is kept, or
    there is no compiler."""
    if find_compiler() is None:
        return ""
    try:
        kept_folder()
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.strerror else str(error)
        return f"compiled code is not kept: {reason}"
    return ""


def _load(path: Path, symbols: Sequence[str]) -> ctypes.CDLL | None:
    """The library at ``path``; None where there is none that can be trusted and used."""
    library = None
    try:
        descriptor = os.open(path, _OPEN)
        try:
            check_file(descriptor, path)
            library = _opened(descriptor, path)
        finally:
            if library is None:
                os.close(descriptor)
    except OSError:
        return None
    return library if all(hasattr(library, name) for name in symbols) else None


def _opened(descriptor: int, path: Path) -> ctypes.CDLL:
    """The very file that was looked at, where the system can load one by its descriptor.

    That stays open: the system takes a second library of the same name for the first one.
    """
    return ctypes.CDLL(str(_DESCRIPTORS / str(descriptor) if _DESCRIPTORS.is_dir() else path))


def _made(
    command: Sequence[str],
    made: Path,
    symbols: Sequence[str],
    processors: Sequence[Sequence[str]] = _NATIVE,
) -> ctypes.CDLL | None:
    """Compile to a file of its own and rename it: no process loads a half-written library.

    ``processors`` are flags of which the first that the compiler takes are right."""
    _sweep(made.parent)
    handle, name = tempfile.mkstemp(dir=made.parent, prefix=_SCRATCH, suffix=".so")
    os.close(handle)
    scratch = Path(name)
    try:
        for attempt, processor in enumerate(processors, 1):
            done = subprocess.run(
                [*command, *processor, "-o", name, "-lm"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT,
                check=attempt == len(processors),
            )
            if done.returncode == 0:
                break
        scratch.chmod(0o700)  # a linker makes the file anew, as the umask has it
        library = _load(scratch, symbols)
        if library is not None:
            scratch.replace(made)
        return library
    finally:
        scratch.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed while they compiled have left."""
    for left in folder.glob(f"{_SCRATCH}*.so"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > 4 * _TIMEOUT:
                left.unlink()


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
