"""What lies in the Hub's cache, and deleting it by the client's own means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nazx_cli.catalog.hub import scan_cache


@dataclass(frozen=True)
class CachedSnapshot:
    """A snapshot in the Hub's cache, whole or not; ``refs`` are the revisions that lead to it."""

    repo: str
    folder: Path
    refs: tuple[str, ...]
    nbytes: int


def cached_snapshots() -> list[CachedSnapshot]:
    """Every snapshot of a model in the Hub's cache, by name."""
    scanned = scan_cache()
    found = [
        CachedSnapshot(
            repo.repo_id, Path(revision.snapshot_path), tuple(revision.refs), revision.size_on_disk
        )
        for repo in (scanned.repos if scanned else ())
        for revision in repo.revisions
    ]
    return sorted(found, key=lambda each: (each.repo, "main" not in each.refs, each.folder))


@dataclass(frozen=True)
class CacheDeletion:
    """What goes when snapshots of a repository are deleted: ``files`` are those with the bytes."""

    snapshots: tuple[Path, ...]
    files: tuple[Path, ...]
    execute: Callable[[], None]


def plan_deletion(repo: str, revision: str | None = None) -> CacheDeletion | None:
    """The deletion of all snapshots of ``repo``, or of the one that ``revision`` leads to.

    The client's own deletion: files that other snapshots share stay. None where there is none.
    """
    scanned = scan_cache()
    repos = [each for each in scanned.repos if each.repo_id == repo] if scanned else []
    chosen = [
        each
        for found in repos
        for each in found.revisions
        if revision is None or revision in each.refs or each.commit_hash.startswith(revision)
    ]
    if not chosen:
        return None
    # Only this one is handed over: copies of a repository have the same commits.
    alone = replace(scanned, repos=frozenset(repos))
    strategy = alone.delete_revisions(*(each.commit_hash for each in chosen))
    files = {Path(path) for path in strategy.blobs}
    for folder in strategy.repos:
        files |= {path for path in Path(folder).rglob("*") if path.is_file()}
    return CacheDeletion(
        tuple(Path(each.snapshot_path) for each in chosen),
        tuple(sorted(path for path in files if not path.is_symlink())),
        strategy.execute,
    )
