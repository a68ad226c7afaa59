"""Downloads from the Hub into its cache: what a repository has, resumable files of known size and
hash, and progress.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nazx_cli.catalog.hub import (
    HubUnreachableError,
    cache_folder,
    cached_snapshot,
    check_reachable,
    endpoint,
    explaining,
    is_offline,
    repo_folder,
    snapshot_folder,
)
from nazx_cli.checkpoint.atomic import DiskFullError, sha256_of
from nazx_cli.checkpoint.checkpoint import (
    INDEX_FILE,
    SINGLE_FILE,
    SMALL_FILES,
    is_complete,
    no_weights,
    read_index,
)
from nazx_cli.checkpoint.write import SHA256
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.names import OnProgress

_MAX_PLAIN = 50_000_000_000  # bytes of a file that the client fetches over plain HTTP
_POLL_SECONDS = 0.2
_ROOM = 16 << 20  # left free, so that the disk is not filled to the last byte


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
    ``revision`` is now. ``HubUnreachableError`` where no Hub answers, ``ModelUnavailableError``
    for everything else that can go wrong.
    """
    cached = cached_snapshot(repo, revision)
    if offline or is_offline():
        if cached is None:
            raise _absent(repo)
        return cached
    # Another tool may have fetched no more than it needed itself; ours always fetches these.
    if cached is not None and (cached / "tokenizer_config.json").is_file() and not refresh:
        return cached
    try:
        check_reachable()
        return _fetch(repo, revision, on_progress, cached)
    except HubUnreachableError:
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
    if offline or is_offline():
        raise _absent(repo)
    check_reachable()
    with explaining(repo, revision):
        return _download(repo, revision, ["config.json"])


def _absent(repo: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"{repo} is not on this machine, and NazX is offline",
        "run once without --offline and HF_HUB_OFFLINE, or name a local folder",
    )


@dataclass(frozen=True)
class _Listing:
    """What a repository holds at its top level: sizes in bytes, and hashes of its large files."""

    commit: str
    sizes: dict[str, int]
    sha256: dict[str, str]


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
        small = [name for name in (*SMALL_FILES, INDEX_FILE) if name in listing.sizes]
        for name in ("config.json", "tokenizer.json"):
            if name not in small:
                raise ModelUnavailableError(
                    f"{repo} has no {name}, which NazX needs", "name another repository"
                )
        if SINGLE_FILE not in listing.sizes and INDEX_FILE not in listing.sizes:
            raise no_weights(repo, sorted(listing.sizes))
        folder = _download(repo, revision, small)
        ModelConfig.from_folder(folder)
        weights = _weight_files(folder, listing)
        total = sum(listing.sizes.get(name, 0) for name in weights)
        blobs = folder.parent.parent / "blobs"
        known = [listing.sha256.get(name) for name in weights]
        parts = [blobs / f"{sha256}{end}" for sha256 in known for end in ("", ".incomplete")]
        present = sum(path.stat().st_size for path in parts if path.is_file())
        with _watch_folder(blobs, total, on_progress, present):
            verified = [name for name in weights if _fetch_large(repo, folder, name, listing)]
            folder = _download(repo, revision, [*small, *weights])
        for name in weights:
            if name not in verified:
                _check_hash(repo, folder / name, listing.sha256.get(name))
    if not is_complete(folder):
        raise ModelUnavailableError(
            f"{repo} came down incomplete or damaged", "try again; finished files are kept"
        )
    return folder


def _is_current(cached: Path, listing: _Listing) -> bool:
    """Whether a whole snapshot is the listed commit with all that NazX takes from it."""
    names = [name for name in SMALL_FILES if name in listing.sizes]
    return cached.name == listing.commit and all((cached / name).is_file() for name in names)


def _fetch_large(repo: str, snapshot: Path, name: str, listing: _Listing) -> bool:
    """Bring the file ``name`` into the cache, going on where an earlier run was stopped.

    The client then finds it there. True where it came down and its hash is right; files without
    a listed hash, and those beyond what goes over plain HTTP, are left to the client.
    """
    sha256, nbytes = listing.sha256.get(name, ""), listing.sizes.get(name, 0)
    blob = snapshot.parent.parent / "blobs" / sha256
    if not SHA256.fullmatch(sha256) or nbytes > _MAX_PLAIN or blob.is_file():
        return False
    from huggingface_hub.file_download import hf_hub_url, http_get
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(repo, name, revision=snapshot.name, endpoint=endpoint())
    headers = build_hf_headers()

    def fetch(file: BinaryIO, start: int) -> None:
        http_get(url, file, resume_size=start, headers=headers, expected_size=nbytes)

    lock = cache_folder() / ".locks" / repo_folder(repo).name / f"{sha256}.lock"
    if not _complete_file(blob, lock, nbytes, sha256, fetch):
        raise _altered(repo, name)
    return True


def _list(repo: str, revision: str | None) -> _Listing:
    from huggingface_hub import HfApi

    info = HfApi(endpoint=endpoint()).model_info(repo, revision=revision, files_metadata=True)
    files = [file for file in info.siblings or [] if "/" not in file.rfilename]
    hashes = {file.rfilename: file.lfs["sha256"] for file in files if file.lfs}
    return _Listing(str(info.sha), {file.rfilename: file.size or 0 for file in files}, hashes)


def _check_hash(repo: str, path: Path, wanted: str | None) -> None:
    """Hold a file to the hash that the Hub lists; where it differs it is removed from the cache."""
    blob = path.resolve()
    if wanted and sha256_of(blob) != wanted:
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


def _download(repo: str, revision: str | None, names: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars, logging

    disable_progress_bars()
    logging.set_verbosity_error()
    found = snapshot_download(
        repo,
        revision=revision,
        cache_dir=cache_folder(),
        endpoint=endpoint(),
        allow_patterns=names,
    )
    return Path(found)


@contextmanager
def _watch_folder(
    folder: Path, total: int, on_progress: OnProgress | None, present: int = 0
) -> Iterator[None]:
    """Call ``on_progress(bytes there, total)`` from a thread while the body runs.

    Bytes there are the ``present`` ones and those that are added to ``folder``.
    """
    if on_progress is None:
        yield
        return
    stop = threading.Event()
    start = _size(folder) - present

    def watch() -> None:
        while not stop.wait(_POLL_SECONDS):
            on_progress(min(_size(folder) - start, total), total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
    on_progress(total, total)


def _size(folder: Path) -> int:
    size = 0
    for path in folder.glob("*"):
        try:
            size += path.stat().st_size
        except OSError:  # renamed in between
            continue
    return size


def _complete_file(
    path: Path, lock: Path, nbytes: int, sha256: str, fetch: Callable[[BinaryIO, int], None]
) -> bool:
    """Make ``path`` appear with its ``nbytes`` bytes of hash ``sha256``.

    ``fetch`` gets a file opened at its end, and the bytes that it holds: it appends the rest. One
    process at a time works on it, the others wait for ``lock``. False where the bytes that came
    down are not those: they are removed then. Whatever else goes wrong leaves what came down for
    the next run.
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
