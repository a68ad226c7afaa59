"""Downloads from the Hub into its cache: what a repository has, resumable files of known size and
hash, and progress.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from nazx_cli.catalog.hub import (
    ask,
    cache_folder,
    cached_snapshot,
    check_reachable,
    endpoint,
    explaining,
    repo_folder,
    snapshot_folder,
)
from nazx_cli.catalog.patience import LEAST_SPEED, Pace, UnreachableError, until, window
from nazx_cli.catalog.pieces import ROOM, Bounded, complete_file, folder_size, watch_folder
from nazx_cli.checkpoint.atomic import has_hash
from nazx_cli.checkpoint.checkpoint import (
    INDEX_FILE,
    SINGLE_FILE,
    SMALL_FILES,
    is_complete,
    no_weights,
    read_index,
)
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.names import OnProgress, is_offline

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PIECE = 1 << 14
_MAX_SMALL = 1 << 28  # bytes of a file that is no weights
_MAX_PLAIN = 50_000_000_000  # bytes of a file that the client fetches over plain HTTP


def download_snapshot(
    repo: str,
    revision: str | None = None,
    *,
    offline: bool = False,
    refresh: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """The folder of ``repo`` at ``revision`` in the Hub's cache, fetched where it is not there.

    Only what is needed is fetched: configuration, tokenizer, safetensors. A snapshot that is
    there in full is used without asking the Hub, unless ``refresh`` asks for the commit that
    ``revision`` is now. ``UnreachableError`` where no Hub answers or bytes come too slowly,
    ``ModelUnavailableError`` for everything else that can go wrong.
    """
    cached = cached_snapshot(repo, revision)
    if is_offline(offline):
        if cached is None:
            raise _absent(repo)
        return cached
    # Another tool may have fetched no more than it needed itself; ours always fetches these.
    if cached is not None and (cached / "tokenizer_config.json").is_file() and not refresh:
        return cached
    try:
        check_reachable()
        return _fetch(repo, revision, on_progress, cached)
    except UnreachableError:
        if cached is None or refresh:
            raise
        return cached


def fetch_config(repo: str, revision: str | None = None, *, offline: bool = False) -> Path:
    """A folder with the ``config.json`` of ``repo`` and nothing that is large.

    From the cache where it is there; errors as ``download_snapshot``.
    """
    cached = snapshot_folder(repo, revision)
    if cached is not None and (cached / "config.json").is_file():
        return cached
    if is_offline(offline):
        raise _absent(repo)
    check_reachable()
    with explaining(repo, revision):
        listing = _list(repo, revision)
        _fetch_small(repo, ["config.json"], listing)
        return _download(repo, revision, ["config.json"], listing)


def _absent(repo: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"{repo} is not on this machine, and NazX is offline",
        "run once without --offline and HF_HUB_OFFLINE, or name a local folder",
    )


@dataclass(frozen=True)
class _Listing:
    """What a repository holds at its top level: sizes in bytes, and hashes as in ``has_hash``."""

    commit: str
    sizes: dict[str, int]
    hashes: dict[str, str]


def _fetch(
    repo: str, revision: str | None, on_progress: OnProgress | None, cached: Path | None
) -> Path:
    """Download in two steps, weights last: a snapshot that has its weights has the rest.

    ``cached`` is the answer where it is the repository's commit already. After the first step
    the configuration is looked at, so that gigabytes of a model that cannot run are not fetched.
    """
    with explaining(repo, revision):
        listing = _list(repo, revision)
        if cached is not None and _is_current(cached, listing):
            return cached
        if SINGLE_FILE not in listing.sizes and INDEX_FILE not in listing.sizes:
            raise no_weights(repo, sorted(listing.sizes))
        small = [name for name in (*SMALL_FILES, INDEX_FILE) if name in listing.sizes]
        for name in ("config.json", "tokenizer.json"):
            if name not in small:
                raise ModelUnavailableError(
                    f"{repo} has no {name}, which NazX needs", "name another repository"
                )
        _fetch_small(repo, small, listing)
        folder = _download(repo, revision, small, listing)
        ModelConfig.from_folder(folder)
        weights = _weight_files(folder, listing)
        total = sum(listing.sizes.get(name, 0) for name in weights)
        blobs = folder.parent.parent / "blobs"
        known = [listing.hashes.get(name) for name in weights]
        parts = [blobs / f"{digest}{end}" for digest in known for end in ("", ".incomplete")]
        present = sum(path.stat().st_size for path in parts if path.is_file())
        with watch_folder(blobs, total, on_progress, present):
            verified = [name for name in weights if _fetch_file(repo, name, listing)]
            folder = _download(repo, revision, [*small, *weights], listing)
        for name in weights:
            if name not in verified:
                _check_hash(repo, folder / name, listing.hashes.get(name))
    if not is_complete(folder):
        raise ModelUnavailableError(
            f"{repo} came down incomplete or damaged", "try again; finished files are kept"
        )
    return folder


def _is_current(cached: Path, listing: _Listing) -> bool:
    """Whether a whole snapshot is the listed commit with all that NazX takes from it."""
    names = [name for name in SMALL_FILES if name in listing.sizes]
    return cached.name == listing.commit and all((cached / name).is_file() for name in names)


def _fetch_small(repo: str, names: list[str], listing: _Listing) -> None:
    """Bring files that are no weights into the cache."""
    for name in names:
        nbytes = listing.sizes.get(name, 0)
        if nbytes > _MAX_SMALL:
            raise ModelUnavailableError(
                f"{repo}: {name} has {nbytes:,} bytes, more than any real one",
                "name another repository",
            )
        _fetch_file(repo, name, listing)


def _fetch_file(repo: str, name: str, listing: _Listing) -> bool:
    """Bring the file ``name`` into the cache, going on where an earlier run was stopped.

    The client then finds it there. True where it came down and its hash is right; files without
    a listed hash, and those beyond what goes over plain HTTP, are left to the client.
    """
    digest, nbytes = listing.hashes.get(name, ""), listing.sizes.get(name, 0)
    blob = repo_folder(repo) / "blobs" / digest
    if not _HASH.fullmatch(digest) or nbytes > _MAX_PLAIN or blob.is_file():
        return False
    from huggingface_hub.file_download import hf_hub_url, http_get
    from huggingface_hub.utils import build_hf_headers

    _prepare_client()
    url = hf_hub_url(repo, name, revision=listing.commit, endpoint=endpoint())
    headers = build_hf_headers()
    pace = Pace(f"downloading {name} of {repo}", window(), LEAST_SPEED * window())

    def fetch(file: BinaryIO, start: int) -> None:
        bounded = Bounded(file, nbytes, f"{name} of {repo}")
        ask(
            repo,
            listing.commit,
            lambda: http_get(
                url,
                cast(BinaryIO, bounded),
                resume_size=start,
                headers=headers,
                expected_size=nbytes,
            ),
            lambda: pace.see(bounded.written),
        )

    lock = cache_folder() / ".locks" / repo_folder(repo).name / f"{digest}.lock"
    if not complete_file(blob, lock, nbytes, digest, fetch):
        raise _altered(repo, name)
    return True


def _list(repo: str, revision: str | None) -> _Listing:
    from huggingface_hub import HfApi

    def work() -> _Listing:
        info = HfApi(endpoint=endpoint()).model_info(repo, revision=revision, files_metadata=True)
        files = [file for file in info.siblings or [] if "/" not in file.rfilename]
        sizes = {str(file.rfilename): int(file.size or 0) for file in files}
        hashes = {
            str(file.rfilename): str(file.lfs["sha256"] if file.lfs else file.blob_id)
            for file in files
        }
        if info.sha is None or any(size < 0 for size in sizes.values()):
            raise ValueError("its answer names no commit")
        return _Listing(str(info.sha), sizes, hashes)

    listing: _Listing = ask(repo, revision, work, until(f"listing the files of {repo}", window()))
    return listing


def _check_hash(repo: str, path: Path, wanted: str | None) -> None:
    """Hold a file to the hash that the Hub lists; where it differs it is removed from the cache."""
    blob = path.resolve()
    if wanted and not has_hash(blob, wanted):
        path.unlink()
        blob.unlink(missing_ok=True)
        raise _altered(repo, path.name)


def _altered(repo: str, name: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"{repo}: {name} came down altered: its hash differs from the Hub's",
        "try again; the file has been removed",
    )


def _weight_files(folder: Path, listing: _Listing) -> list[str]:
    if SINGLE_FILE in listing.sizes:
        return [SINGLE_FILE]
    return sorted(set(read_index(folder / INDEX_FILE, "name another repository").values()))


def _prepare_client() -> None:
    """Have it say nothing, and write what comes in small pieces, so that a slow download can be
    told from one that stands still."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars, logging

    disable_progress_bars()
    logging.set_verbosity_error()
    constants.DOWNLOAD_CHUNK_SIZE = _PIECE


def _download(repo: str, revision: str | None, names: list[str], listing: _Listing) -> Path:
    """The snapshot with the files ``names``; those that are not in the cache are fetched."""
    from huggingface_hub import snapshot_download

    _prepare_client()
    blobs = repo_folder(repo) / "blobs"
    before = folder_size(blobs)
    # Another process may bring other files of the repository at the same time.
    most = ROOM + sum(listing.sizes.values())
    pace = Pace(f"downloading from {repo}", window(), 1)

    def look() -> None:
        grown = folder_size(blobs) - before
        if grown > most:
            raise ModelUnavailableError(
                f"{repo} sends more than the {most - ROOM:,} bytes that it lists",
                "try again later: what answers may not be the Hub",
            )
        pace.see(grown)

    def work() -> str:
        return snapshot_download(
            repo,
            revision=revision,
            cache_dir=cache_folder(),
            endpoint=endpoint(),
            allow_patterns=names,
        )

    return Path(ask(repo, revision, work, look))
