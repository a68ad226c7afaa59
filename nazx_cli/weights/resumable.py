"""A file of known size and hash that comes down in as many runs as it takes.

The Hub's client starts a file from the beginning after its process was killed; weights are too
large for that. What has come down lies beside the file as ``.incomplete`` until it is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from nazx_cli.weights.atomic import DiskFullError
from nazx_cli.weights.hashing import sha256_of

Fetch = Callable[[BinaryIO, int], None]
"""Called with a file opened at its end, and the bytes that it holds: appends the rest."""

_ROOM = 16 << 20  # left free, so that the disk is not filled to the last byte


def complete_file(path: Path, lock: Path, nbytes: int, sha256: str, fetch: Fetch) -> bool:
    """Make ``path`` appear with its ``nbytes`` bytes of hash ``sha256``.

    One process at a time works on it, the others wait for ``lock``. False where the bytes that
    came down are not those: they are removed then. Whatever else goes wrong leaves what came
    down for the next run.
    """
    from filelock import FileLock

    lock.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if path.is_file():
            return True
        partial = path.with_name(f"{path.name}.incomplete")
        with partial.open("ab") as file:
            start = file.tell()
            if start > nbytes:
                start = file.truncate(0)
            _check_room(path.parent, nbytes - start)
            fetch(file, start)
        if partial.stat().st_size != nbytes or sha256_of(partial) != sha256:
            partial.unlink()
            return False
        partial.chmod(0o644)
        partial.replace(path)
    return True


def _check_room(folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if nbytes and free < nbytes + _ROOM:
        raise DiskFullError(
            f"there is no room in {folder}: {nbytes:,} bytes are needed, {free:,} are free",
            "free some space, or set NAZX_HOME and HF_HOME to folders on a larger disk",
        )
