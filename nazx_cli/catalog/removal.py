"""Removing models from this machine: what would go, how many bytes that frees, and doing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nazx_cli.catalog.hub import cached_snapshot
from nazx_cli.catalog.hub_cache import plan_deletion
from nazx_cli.catalog.resolve import converted_folder, parse_name
from nazx_cli.checkpoint.atomic import building, explained
from nazx_cli.checkpoint.write import Origin
from nazx_cli.errors import ModelUnavailableError, UsageError


@dataclass(frozen=True)
class Removal:
    """One model that can go: ``files`` are those with its bytes, ``kept`` names the Hub
    repository it was made from where that stays in the Hub's cache."""

    name: str
    folders: tuple[Path, ...]
    files: tuple[Path, ...]
    execute: Callable[[], None]
    kept: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of its files."""
        return sum(path.stat().st_size for path in self.files)


def plan_removal(name: str, revision: str | None = None) -> Removal:
    """What removing the model ``name`` takes away.

    ``UsageError`` for a folder that is none of NazX's, ``ModelUnavailableError`` where the model
    is not on this machine.
    """
    called = parse_name(name, revision)
    if called.folder is not None:
        raise UsageError(
            f"{name} is a folder of yours; nazx rm removes only what nazx pull brought",
            "delete the folder by other means",
        )
    if called.entry is not None:
        return _converted(name, converted_folder(called.entry.name, called.revision))
    found = plan_deletion(called.name, called.revision)
    if found is None:
        raise _absent(name)
    return Removal(name, found.snapshots, found.files, found.execute)


def freed_bytes(removals: Sequence[Removal]) -> int:
    """Bytes that the disk gains: a file that has another name elsewhere frees nothing."""
    removed: Counter[tuple[int, int]] = Counter()
    sizes: dict[tuple[int, int], tuple[int, int]] = {}
    for path in {path for removal in removals for path in removal.files}:
        status = path.stat()
        key = (status.st_dev, status.st_ino)
        removed[key] += 1
        sizes[key] = (status.st_nlink, status.st_size)
    return sum(size for key, (links, size) in sizes.items() if removed[key] >= links)


def _converted(name: str, folder: Path) -> Removal:
    left_behind = list(folder.parent.glob(f".{folder.name}.*.partial"))
    folders = [path for path in (folder, *left_behind) if path.is_dir()]
    if not folders:
        raise _absent(name)
    files = tuple(path for top in folders for path in top.rglob("*") if path.is_file())
    origin = Origin.read(folder)
    kept = ""
    if origin is not None and origin.kind == "hub" and cached_snapshot(origin.source):
        kept = origin.source

    def execute() -> None:
        with building(folder) as scratch, explained(folder):
            if folder.exists():
                # Out of the way in one step: a half-removed model never has a model's name.
                folder.rename(scratch / "removed")

    return Removal(name, tuple(folders), files, execute, kept)


def _absent(name: str) -> ModelUnavailableError:
    return ModelUnavailableError(f"{name} is not on this machine", "nazx ls lists what is")
