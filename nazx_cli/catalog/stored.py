"""Where NazX keeps its own files, and the models on this machine: its converted ones there, and
snapshots in the Hub's cache, listed and removed.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.catalog.hub import cache_folder, cached_snapshot, may_enter
from nazx_cli.checkpoint.atomic import building, explained
from nazx_cli.checkpoint.checkpoint import Checkpoint, folder_bytes, is_complete
from nazx_cli.checkpoint.quantized import weights_dtype
from nazx_cli.checkpoint.write import Origin
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.foreign import expanded

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo


def nazx_home() -> Path:
    """``NAZX_HOME``, else ``nazx`` in the platform's data folder; it need not exist yet."""
    chosen = os.environ.get("NAZX_HOME")
    if chosen:
        return expanded(chosen).absolute()
    return _data_folder() / "nazx"


def models_folder() -> Path:
    """Folder of the converted checkpoints, one sub-folder each; it need not exist yet."""
    return nazx_home() / "models"


def pinned_name(name: str, revision: str | None) -> str:
    """A model's name with its revision, as ``ModelRef.parse`` takes it."""
    return f"{name}@{revision}" if revision else name


def converted_folder(name: str, revision: str | None = None) -> Path:
    """Where the converted checkpoint of the registry's ``name`` lies, once it is there."""
    suffix = "@" + re.sub(r"[^\w.-]", "-", revision) if revision else ""
    return models_folder() / (name + suffix)


def wheels_folder(converted: Path) -> Path:
    """Where wheels lie of which the checkpoint ``converted`` is to be made, until it is."""
    return converted.with_name(f".{converted.name}.wheels")


def _data_folder() -> Path:
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Application Support"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    chosen = os.environ.get("XDG_DATA_HOME")
    # The XDG specification has relative values ignored.
    if chosen and Path(chosen).is_absolute():
        return Path(chosen)
    return home / ".local" / "share"


@dataclass(frozen=True)
class StoredModel:
    """A model on this machine; ``place`` is nazx or hub, ``problem`` says why it is unusable.

    ``nbytes`` counts its files; a converted model may share them with the Hub's cache.
    """

    name: str
    folder: Path
    place: str
    nbytes: int
    config: ModelConfig | None = None
    dtype: str = ""
    origin: Origin | None = None
    problem: str = ""


def stored_models() -> list[StoredModel]:
    """Converted models by name, damaged ones too, then usable snapshots in the Hub's cache."""
    return [*_converted(), *_cached()]


def _converted() -> Iterator[StoredModel]:
    folders = [path for path in models_folder().glob("[!.]*") if path.is_dir()]
    for folder in sorted(folders):
        origin = Origin.read(folder)
        name = folder.name
        if origin is not None and origin.revision:
            name = f"{name.partition('@')[0]}@{origin.revision}"
        yield _stored(name, folder, "nazx", origin)


def _cached() -> Iterator[StoredModel]:
    scanned = _scan_cache()
    snapshots = [
        (repo.repo_id, "main" not in revision.refs, revision.snapshot_path, sorted(revision.refs))
        for repo in (scanned.repos if scanned else ())
        for revision in repo.revisions
    ]
    seen: set[str] = set()
    for name, _, folder, refs in sorted(snapshots):
        if not is_complete(folder):
            continue
        if name in seen:  # the first is the one that the bare name means
            name = f"{name}@{refs[0] if refs else folder.name[:12]}"
        seen.add(name)
        model = _stored(name, folder, "hub", Origin.of(folder))
        if not model.problem:
            yield model


def _stored(name: str, folder: Path, place: str, origin: Origin | None) -> StoredModel:
    nbytes = folder_bytes(folder)
    try:
        config = ModelConfig.from_folder(folder)
        dtype = weights_dtype(config, Checkpoint.open(folder))
        if not (folder / "tokenizer.json").is_file():
            raise ModelUnavailableError(f"{folder} has no tokenizer.json")
    except ModelUnavailableError as error:
        return StoredModel(name, folder, place, nbytes, origin=origin, problem=error.message)
    return StoredModel(name, folder, place, nbytes, config, dtype, origin)


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


def converted_removal(name: str, folder: Path) -> Removal | None:
    """The removal of a converted model and what a killed run left of it; None if there is none."""
    left_behind = list(folder.parent.glob(f".{folder.name}.*.partial"))
    wheels = wheels_folder(folder)
    folders = [path for path in (folder, wheels, *left_behind) if path.is_dir()]
    if not folders:
        return None
    files = tuple(path for top in folders for path in top.rglob("*") if path.is_file())
    origin = Origin.read(folder)
    from_hub = origin is not None and origin.kind == "hub" and cached_snapshot(origin.source)
    kept = origin.source if origin and from_hub else ""

    def execute() -> None:
        with building(folder) as scratch, explained(folder):
            if folder.exists():
                # Out of the way in one step: a half-removed model never has a model's name.
                folder.rename(scratch / "removed")
            if wheels.exists():
                wheels.rename(scratch / "wheels")

    return Removal(name, tuple(folders), files, execute, kept)


def cached_removal(name: str, repo: str, revision: str | None = None) -> Removal | None:
    """The removal of all snapshots of ``repo``, or of the one that ``revision`` leads to.

    The client's own deletion: files that other snapshots share stay. None where there is none.
    """
    scanned = _scan_cache()
    repos = [each for each in scanned.repos if each.repo_id == repo] if scanned else []
    chosen = [
        each
        for found in repos
        for each in found.revisions
        if revision is None or revision in each.refs or each.commit_hash.startswith(revision)
    ]
    if scanned is None or not chosen:
        return None
    # Only this one is handed over: copies of a repository have the same commits.
    alone = replace(scanned, repos=frozenset(repos))
    strategy = alone.delete_revisions(*(each.commit_hash for each in chosen))
    files = set(strategy.blobs)
    for folder in strategy.repos:
        files |= {path for path in folder.rglob("*") if path.is_file()}
    return Removal(
        name,
        tuple(each.snapshot_path for each in chosen),
        tuple(sorted(path for path in files if not path.is_symlink())),
        strategy.execute,
    )


def _scan_cache() -> HFCacheInfo | None:
    """What the client finds of models in the Hub's cache; None where there is no cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.utils import logging

    if not may_enter(cache_folder()):
        return None
    logging.set_verbosity_error()
    found = scan_cache_dir(cache_folder())
    return replace(
        found, repos=frozenset(repo for repo in found.repos if repo.repo_type == "model")
    )
