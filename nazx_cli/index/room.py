"""Where the index is, and how much of the disk it takes, in all; keeping it within a limit;
emptying it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from nazx_cli.errors import NazxError


def index_folder() -> Path:
    """The folder of the index, of every tokenizer; it need not exist yet."""
    from nazx_cli.catalog.stored import nazx_home

    return nazx_home() / "index"


def nbytes(folder: Path) -> int:
    """Bytes of all files of the index in ``folder``, of every tokenizer."""
    return sum(size for size, _, _ in _files(folder, "*"))


def num_segments(folder: Path) -> int:
    """How many segments there are in it."""
    return len(_files(folder, "*.safetensors"))


def clear(folder: Path) -> None:
    """Remove all of it; who is using it goes on with what is open."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass  # there was none
    except OSError as error:
        told = f"{folder} cannot be removed: {error.strerror or error}"
        raise NazxError(told, "look who may write there") from None


def used(path: Path) -> None:
    """Note that a segment is used now."""
    with suppress(OSError):
        os.utime(path)


def trim(folder: Path, limit: int, kept: Collection[Path]) -> None:
    """Remove the segments that were used longest ago until no more than ``limit`` bytes are left;
    not those of ``kept``, which are needed: ``NazxError`` where these alone are more."""
    excess = nbytes(folder) - limit
    for size, _, path in sorted(_files(folder, "*.safetensors"), key=lambda file: file[1]):
        if excess <= 0:
            return
        if path not in kept:
            with suppress(OSError):
                path.unlink()
            excess -= size
    if excess > 0:
        raise NazxError(
            f"the index of these files takes more than {limit / 1e9:.3g} GB",
            "raise --index-size, or name fewer files",
        )


def _files(folder: Path, pattern: str) -> list[tuple[int, float, Path]]:
    """Size, time of last use and path of each file."""
    found = []
    for path in folder.glob(f"*/{pattern}"):
        with suppress(OSError):
            state = path.stat()
            found.append((state.st_size, state.st_mtime, path))
    return found
