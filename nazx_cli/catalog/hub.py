"""Checkpoints from the Hugging Face Hub: the only importer of ``huggingface_hub``.

Files live in the Hub's own cache, which other tools share. The client retries for a long time
where there is no Hub, so a short probe of ours goes first. Endpoint, cache folder and offline
mode are read from the environment here, at the time of the call, and handed to the client.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from nazx_cli.catalog.hub_download import (
    HubUnreachableError,
    complete_file,
    explaining,
    watch_folder,
)
from nazx_cli.checkpoint.atomic import sha256_of
from nazx_cli.checkpoint.checkpoint import INDEX_FILE, SINGLE_FILE, check_shard_name, no_weights
from nazx_cli.checkpoint.convert import SMALL_FILES, is_complete
from nazx_cli.checkpoint.write import Origin
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError, first_line

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""

PROBE_SECONDS = 2.5
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_PLAIN = 50_000_000_000  # bytes of a file that the client fetches over plain HTTP
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_TRUE = ("1", "ON", "YES", "TRUE")


def is_repo_name(name: str) -> bool:
    """Whether ``name`` has the form ``org/repo``."""
    return bool(_REPO.fullmatch(name)) and ".." not in name and "--" not in name


def download_snapshot(
    repo: str,
    revision: str | None = None,
    *,
    offline: bool = False,
    refresh: bool = False,
    on_progress: Progress | None = None,
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
            raise ModelUnavailableError(
                f"{repo} is not on this machine, and NazX is offline",
                "run once without --offline and HF_HUB_OFFLINE, or name a local folder",
            )
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


def cached_snapshot(repo: str, revision: str | None = None) -> Path | None:
    """The snapshot in the Hub's cache if it is a whole checkpoint; never uses the network.

    Without a ``revision`` an older whole snapshot serves where the newest is not whole yet.
    """
    found = snapshot_folder(repo, revision)
    folders = [found] if found is not None else []
    if revision is None:
        others = (cache_folder() / _folder_name(repo) / "snapshots").glob("*")
        folders += sorted(others, key=lambda path: -path.stat().st_mtime)
    return next((folder for folder in folders if is_complete(folder)), None)


def snapshot_folder(repo: str, revision: str | None = None) -> Path | None:
    """The snapshot that ``revision`` leads to in the Hub's cache, whole or not."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "config.json", cache_dir=cache_folder(), revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def snapshot_origin(folder: Path, revision: str | None = None) -> Origin | None:
    """Repository, commit and hashes of a snapshot in the Hub's cache; None for other folders."""
    snapshots, repo = folder.parent, folder.parent.parent.name
    if snapshots.name != "snapshots" or not repo.startswith("models--"):
        return None
    blobs = {path.name: path.resolve().name for path in folder.glob("*.safetensors")}
    hashes = {name: blob for name, blob in blobs.items() if _SHA256.fullmatch(blob)}
    source = repo.removeprefix("models--").replace("--", "/", 1)
    return Origin("hub", source, revision, folder.name, hashes)


def scan_cache() -> Any:
    """What the client finds of models in the Hub's cache; None where there is no cache."""
    from huggingface_hub import scan_cache_dir

    if not cache_folder().is_dir():
        return None
    _client_utils().logging.set_verbosity_error()
    found: Any = scan_cache_dir(cache_folder())
    models = frozenset(repo for repo in found.repos if repo.repo_type == "model")
    return replace(found, repos=models)


def _folder_name(repo: str) -> str:
    return f"models--{repo.replace('/', '--')}"


def check_reachable(seconds: float = PROBE_SECONDS) -> None:
    """Raise ``HubUnreachableError`` unless the Hub gives any answer within ``seconds``."""
    failure = "it gave no answer"
    answered = threading.Event()
    finished = threading.Event()

    def probe() -> None:
        nonlocal failure
        try:
            _client_utils().get_session().head(endpoint(), timeout=seconds)
            answered.set()
        except Exception as error:  # its type depends on the HTTP library of the client's version
            failure = first_line(error)[:160]
        finally:
            finished.set()

    # A thread, since neither name look-up nor a connection that is swallowed can be hurried.
    threading.Thread(target=probe, daemon=True).start()
    finished.wait(seconds)
    if not answered.is_set():
        raise HubUnreachableError(
            f"the Hub at {urlsplit(endpoint()).netloc} cannot be reached: {failure}",
            "connect to the network, check HF_ENDPOINT, or name a local folder",
        )


def endpoint() -> str:
    """The Hub's address, without a slash at the end."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or str(constants.ENDPOINT)).rstrip("/")


def cache_folder() -> Path:
    """The Hub's cache, as the environment names it."""
    from huggingface_hub import constants

    if chosen := os.environ.get("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return Path(constants.HF_HUB_CACHE)


@dataclass(frozen=True)
class _Listing:
    """What a repository holds at its top level: sizes in bytes, and hashes of its large files."""

    commit: str
    sizes: dict[str, int]
    sha256: dict[str, str]


def _fetch(
    repo: str, revision: str | None, on_progress: Progress | None, cached: Path | None
) -> Path:
    """Download in two steps, weights last: a snapshot that has its weights has the rest.

    ``cached`` is the answer where it is the repository's commit already. After the first step
    the configuration is looked at, so that gigabytes of a model that cannot run are not fetched.
    """
    from huggingface_hub import errors

    with explaining(errors, repo, revision, cache_folder()):
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
        present = sum(_present(blobs, listing.sha256.get(name)) for name in weights)
        with watch_folder(blobs, total, on_progress, present):
            verified = [name for name in weights if _fetch_large(repo, folder, name, listing)]
            folder = _download(repo, revision, [*small, *weights])
        _check_hashes(
            repo,
            folder,
            {name: listing.sha256.get(name) for name in weights if name not in verified},
        )
    if not is_complete(folder):
        raise ModelUnavailableError(
            f"{repo} came down incomplete or damaged", "try again; finished files are kept"
        )
    return folder


def _is_current(cached: Path, listing: _Listing) -> bool:
    """Whether a whole snapshot is the listed commit with all that NazX takes from it."""
    names = [name for name in SMALL_FILES if name in listing.sizes]
    return cached.name == listing.commit and all((cached / name).is_file() for name in names)


def _present(blobs: Path, sha256: str | None) -> int:
    """Bytes of a large file that are there, whole or in part."""
    paths = [blobs / str(sha256), blobs / f"{sha256}.incomplete"]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _fetch_large(repo: str, snapshot: Path, name: str, listing: _Listing) -> bool:
    """Bring the file ``name`` into the cache, going on where an earlier run was stopped.

    The client then finds it there. True where it came down and its hash is right; files without
    a listed hash, and those beyond what goes over plain HTTP, are left to the client.
    """
    sha256, nbytes = listing.sha256.get(name, ""), listing.sizes.get(name, 0)
    blob = snapshot.parent.parent / "blobs" / sha256
    if not _SHA256.fullmatch(sha256) or nbytes > _MAX_PLAIN or blob.is_file():
        return False
    client = importlib.import_module("huggingface_hub.file_download")
    url = client.hf_hub_url(repo, name, revision=snapshot.name, endpoint=endpoint())
    headers = _client_utils().build_hf_headers()

    def fetch(file: BinaryIO, start: int) -> None:
        client.http_get(url, file, resume_size=start, headers=headers, expected_size=nbytes)

    lock = cache_folder() / ".locks" / _folder_name(repo) / f"{sha256}.lock"
    if not complete_file(blob, lock, nbytes, sha256, fetch):
        raise _altered(repo, name)
    return True


def _list(repo: str, revision: str | None) -> _Listing:
    from huggingface_hub import HfApi

    info = HfApi(endpoint=endpoint()).model_info(repo, revision=revision, files_metadata=True)
    files = [file for file in info.siblings or [] if "/" not in file.rfilename]
    hashes = {file.rfilename: file.lfs["sha256"] for file in files if file.lfs}
    return _Listing(str(info.sha), {file.rfilename: file.size or 0 for file in files}, hashes)


def _check_hashes(repo: str, folder: Path, hashes: dict[str, str | None]) -> None:
    """Hold files to the hashes that the Hub lists; one that differs is removed from the cache."""
    for name, wanted in hashes.items():
        path = (folder / name).resolve()
        if wanted and sha256_of(path) != wanted:
            (folder / name).unlink()
            path.unlink(missing_ok=True)
            raise _altered(repo, name)


def _altered(repo: str, name: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"{repo}: {name} came down altered: its hash differs from the Hub's",
        "try again; the file has been removed",
    )


def _weight_files(folder: Path, listing: _Listing) -> list[str]:
    if SINGLE_FILE in listing.sizes:
        return [SINGLE_FILE]
    path = folder / INDEX_FILE
    try:
        names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelUnavailableError(
            f"{path} is no usable index of shards", "name another repository"
        ) from None
    for name in names:
        check_shard_name(str(name), path)
    return sorted(map(str, names))


def _download(repo: str, revision: str | None, names: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    utils = _client_utils()
    utils.disable_progress_bars()
    utils.logging.set_verbosity_error()
    found: Any = snapshot_download(
        repo,
        revision=revision,
        cache_dir=cache_folder(),
        endpoint=endpoint(),
        allow_patterns=names,
    )
    return Path(found)


def _client_utils() -> Any:
    """The client's helpers, whose type information differs between its versions."""
    return importlib.import_module("huggingface_hub.utils")


def is_offline() -> bool:
    """Whether the environment forbids the network, in the Hub client's own words."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in _TRUE for name in names)


def fetch_config(repo: str, revision: str | None = None, *, offline: bool = False) -> Path:
    """A folder with the ``config.json`` of ``repo`` and nothing that is large.

    From the cache where it is there; errors as ``download_snapshot``.
    """
    cached = snapshot_folder(repo, revision)
    if cached is not None and (cached / "config.json").is_file():
        return cached
    if offline or is_offline():
        raise ModelUnavailableError(
            f"{repo} is not on this machine, and NazX is offline",
            "run once without --offline and HF_HUB_OFFLINE, or name a local folder",
        )
    check_reachable()
    errors = importlib.import_module("huggingface_hub.errors")
    with explaining(errors, repo, revision, cache_folder()):
        return _download(repo, revision, ["config.json"])
