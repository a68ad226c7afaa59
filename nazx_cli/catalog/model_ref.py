"""A model's identity: what a person calls a model, told apart once, and all that follows from it.

A name is that of a folder, of a registry entry or of a Hub repository. Whatever a command wants of
a model (is it here? where? fetch it, remove it, describe it) it asks of a ``ModelRef``.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nazx_cli.catalog.registry import AdapterChoice, HubSource, Registry, RegistryEntry
from nazx_cli.catalog.stored import (
    Removal,
    cached_removal,
    converted_folder,
    converted_removal,
    pinned_name,
)
from nazx_cli.checkpoint.adapters import is_far_adapter
from nazx_cli.checkpoint.checkpoint import Checkpoint, folder_bytes, is_complete
from nazx_cli.checkpoint.quantized import weights_dtype
from nazx_cli.checkpoint.write import Origin
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError, UsageError
from nazx_cli.foreign import expanded
from nazx_cli.names import ADAPTER_CONFIG, NO_ADAPTER, OnNamedProgress

_REPO = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class ModelRef(ABC):
    """A model by one of its names; ``word`` is what the person said, ``name`` what that means.

    ``revision`` is a branch, tag or commit of a Hub repository. Only ``config`` and ``fetch`` use
    the network; where a model is not to be had, methods raise ``ModelUnavailableError``.
    """

    word: str
    name: str
    revision: str | None

    @staticmethod
    def parse(name_or_path: str | Path, revision: str | None = None) -> ModelRef:
        """Tell the kinds of names apart; ``NAME@REVISION`` says what ``revision`` says.

        ``ModelUnavailableError`` for what is none of them, and for a folder without a checkpoint.
        """
        word = os.fspath(name_or_path)
        local = _local(word)
        if local is not None:
            if revision:
                raise ModelUnavailableError(
                    f"{local} is a local folder, which has no revisions", "leave --revision out"
                )
            return LocalModel(word, word, None, local)
        base, _, pinned = word.partition("@")
        if pinned and revision and pinned != revision:
            raise ModelUnavailableError(
                f"{word} and --revision {revision} name two revisions", "leave one of them out"
            )
        revision = pinned or revision or None
        entry = Registry.load().find(base)
        if entry is not None:
            return RegistryModel(word, entry.name, revision, entry)
        if _REPO.fullmatch(base):
            return HubModel(word, base, revision)
        raise _unknown(word)

    @property
    def pinned(self) -> str:
        """The name with its revision, as ``parse`` takes it."""
        return pinned_name(self.name, self.revision)

    @abstractmethod
    def present(self) -> Path | None:
        """The checkpoint folder where the model is on this machine in full, else None; asks
        nobody."""

    def place(self) -> Path:
        """Its folder on this machine; unlike that of ``present`` it may be damaged."""
        folder = self._folder()
        if folder is None or not folder.is_dir():
            raise self._absent(f"nazx pull {self.word}")
        return folder

    @abstractmethod
    def config(self, *, offline: bool = False) -> ModelConfig:
        """Its configuration, without its weights."""

    def fetch(
        self,
        *,
        offline: bool = False,
        refresh: bool = False,
        on_progress: OnNamedProgress | None = None,
    ) -> Path:
        """The checkpoint folder, fetched where it is not on this machine.

        A model that is there is used without any network, unless ``refresh`` asks its source for
        a newer one. The error says what was tried and what to do.
        """
        return self._fetch(offline, refresh, on_progress or (lambda stage, done, total: None))

    def adapters(self, chosen: str | Path | None) -> AdapterChoice:
        """What ``--adapter`` means for this model: a folder, ``none``, or None for its own.

        ``ModelUnavailableError`` for a folder that holds no adapter.
        """
        if chosen is None:
            return self._shipped()
        if str(chosen) == NO_ADAPTER:
            return AdapterChoice()
        folder = expanded(chosen)
        if not (folder / ADAPTER_CONFIG).is_file():
            raise ModelUnavailableError(
                f"{chosen} is no adapter: it has no {ADAPTER_CONFIG}",
                "name a folder that nazx tune or PEFT made, or none",
            )
        if is_far_adapter(folder):
            return replace(self._shipped(), far=folder)
        return AdapterChoice(always=folder)

    def _shipped(self) -> AdapterChoice:
        """The adapters that it comes with."""
        return AdapterChoice()

    def removal(self) -> Removal:
        """What removing the model takes away; ``UsageError`` for a folder of the person's own."""
        found = self._removal()
        if found is None:
            raise self._absent("nazx ls lists what is")
        return found

    def repair_command(self) -> str:
        """What to type to replace a damaged one."""
        return f"nazx rm {self.pinned} && nazx pull {self.pinned}"

    def correction(self) -> str:
        """In what the configuration that came with its weights differs from what NazX knew of the
        model; empty where it does not, or nothing was known. Asks nobody."""
        return ""

    def describe(self) -> dict[str, Any]:
        """What there is to know about it, as a JSON object; asks nobody.

        A model that is not on this machine is described from the registry, without its files.
        """
        folder = self.present()
        facts = {"name": self.word, "present": folder is not None, **self._registered()}
        if folder is None:
            return facts | self._expected()
        config = ModelConfig.from_folder(folder)
        return facts | _architecture(config) | _files(folder, config)

    @abstractmethod
    def _folder(self) -> Path | None:
        """Where it would lie, damaged or not."""

    @abstractmethod
    def _fetch(self, offline: bool, refresh: bool, progress: OnNamedProgress) -> Path:
        """``fetch``, with all that it can be asked for."""

    @abstractmethod
    def _removal(self) -> Removal | None:
        """``removal``; None where it is not on this machine."""

    def _registered(self) -> dict[str, Any]:
        """What the registry says of it, here or not."""
        return {}

    def _expected(self) -> dict[str, Any]:
        """What is known of it where it is not here."""
        raise self._absent(f"nazx pull {self.word}")

    def _absent(self, hint: str) -> ModelUnavailableError:
        return ModelUnavailableError(f"{self.word} is not on this machine", hint)


@dataclass(frozen=True)
class LocalModel(ModelRef):
    """A checkpoint in a folder of the person's own; its name is its path, as it was said."""

    folder: Path

    def present(self) -> Path:
        return self.folder

    def config(self, *, offline: bool = False) -> ModelConfig:
        return ModelConfig.from_folder(self.folder)

    def _fetch(self, offline: bool, refresh: bool, progress: OnNamedProgress) -> Path:
        return self.folder

    def _removal(self) -> Removal | None:
        raise UsageError(
            f"{self.word} is a folder of yours; nazx rm removes only what nazx pull brought",
            "delete the folder by other means",
        )

    def repair_command(self) -> str:
        return "take another copy of the folder"

    def _folder(self) -> Path:
        return self.folder


@dataclass(frozen=True)
class RegistryModel(ModelRef):
    """A model that NazX knows by name, kept as a converted checkpoint in NazX's own folder."""

    entry: RegistryEntry

    def present(self) -> Path | None:
        return self._folder() if is_complete(self._folder()) else None

    def config(self, *, offline: bool = False) -> ModelConfig:
        return self._came() or self.entry.config

    def correction(self) -> str:
        came = self._came()
        found = self.entry.corrections(came) if came else ""
        return f"{self.name}: its own config says {found}" if found else ""

    def _came(self) -> ModelConfig | None:
        """The configuration that came with the weights, or before them; None where none has."""
        if (self._folder() / "config.json").is_file():
            return ModelConfig.from_folder(self._folder())
        from nazx_cli.catalog.hub import snapshot_folder

        for source in self.entry.sources:
            folder = isinstance(source, HubSource) and snapshot_folder(source.repo, self.revision)
            if folder:
                with suppress(ModelUnavailableError):  # it is damaged, and will be fetched again
                    config = ModelConfig.from_folder(folder)
                    own = config.raw.get("model_type") == "nazx"
                    if own:
                        return config
                    return replace(config, attention=self.entry.attention_for(config))
        return None

    def _fetch(self, offline: bool, refresh: bool, progress: OnNamedProgress) -> Path:
        from nazx_cli.catalog.sources import RegistryFetch

        return RegistryFetch(self.entry, self.revision, offline, refresh, progress).run()

    def _removal(self) -> Removal | None:
        return converted_removal(self.word, self._folder())

    def repair_command(self) -> str:
        # The converted model may share its files with the Hub's cache: both have to go.
        origin = Origin.read(self._folder())
        shares = origin and origin.kind == "hub" and cached_removal(origin.source, origin.source)
        cached = f" {origin.source}" if origin and shares else ""
        return f"nazx rm {self.pinned}{cached} && nazx pull {self.pinned}"

    def _shipped(self) -> AdapterChoice:
        return AdapterChoice(reader=self.entry.reader_folder, far=self.entry.far_folder)

    def _folder(self) -> Path:
        return converted_folder(self.name, self.revision)

    def _registered(self) -> dict[str, Any]:
        entry = self.entry
        facts: dict[str, Any] = {
            "description": entry.description,
            "good_at": entry.good_at,
            "licence": entry.licence,
            "gated": entry.gated,
            "download_bytes": entry.download_bytes,
            "recommended_quantization": entry.quantize,
            "sources": [source.name for source in entry.sources],
            "correction": self.correction() or None,
        }
        if self.entry.reader is not None:
            reader = self.entry.reader_folder
            facts["reader"] = str(reader) if reader else None
        if self.entry.far is not None:
            far = self.entry.far_folder
            facts["far_memory"] = str(far) if far else None
        return facts

    def _expected(self) -> dict[str, Any]:
        return _architecture(self.config()) | {"chat_template": self.entry.chat}


@dataclass(frozen=True)
class HubModel(ModelRef):
    """A repository ``org/repo``, used as it lies in the Hub's cache."""

    def present(self) -> Path | None:
        from nazx_cli.catalog.hub import cached_snapshot

        return cached_snapshot(self.name, self.revision)

    def config(self, *, offline: bool = False) -> ModelConfig:
        from nazx_cli.catalog.hub_download import fetch_config

        return ModelConfig.from_folder(fetch_config(self.name, self.revision, offline=offline))

    def _fetch(self, offline: bool, refresh: bool, progress: OnNamedProgress) -> Path:
        from nazx_cli.catalog.hub_download import download_snapshot

        progress("connecting", 0, 0)
        return download_snapshot(
            self.name,
            self.revision,
            offline=offline,
            refresh=refresh,
            on_progress=lambda done, total: progress("downloading", done, total),
        )

    def _removal(self) -> Removal | None:
        return cached_removal(self.word, self.name, self.revision)

    def _folder(self) -> Path | None:
        from nazx_cli.catalog.hub import snapshot_folder

        return snapshot_folder(self.name, self.revision)


def _local(name: str) -> Path | None:
    """The folder that ``name`` is the path of; None where it may be another kind of name."""
    path = expanded(name)
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
        hint = "name the folder that holds config.json and model.safetensors"
        if path.suffix.lower() == ".gguf":
            hint = f"nazx convert {name} FOLDER makes one of it"
        raise ModelUnavailableError(f"{name} is a file, a model is a folder", hint)
    if not (path / "config.json").is_file():
        raise ModelUnavailableError(
            f"{name} is no checkpoint: it has no config.json",
            "name a folder with config.json, model.safetensors and tokenizer.json",
        )
    Checkpoint.open(path)
    return path


def _unknown(name: str) -> ModelUnavailableError:
    hint = "nazx ls --all has the known names; or name a folder, or org/repo on the Hub"
    if near := Registry.load().suggest(name):
        hint = f"did you mean {' or '.join(near)}?"
    return ModelUnavailableError(f"unknown model {name!r}", hint)


def _architecture(config: ModelConfig) -> dict[str, Any]:
    rope = config.rope
    factor = {"factor": rope.factor} if rope.kind != "default" else {}
    return {
        "family": config.family,
        "parameters": config.num_parameters,
        "layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_positions": config.max_positions,
        "tied_embeddings": config.tie_embeddings,
        "parallel_residual": config.parallel_residual,
        "attention": config.attention.to_dict(),
        "rope": {"kind": rope.kind, "theta": rope.theta, "dim": rope.dim, **factor},
    }


def _files(folder: Path, config: ModelConfig) -> dict[str, Any]:
    from nazx_cli.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_folder(folder)
    stops = sorted(tokenizer.stop_ids)
    origin = Origin.of(folder)
    return {
        "dtype": weights_dtype(config, Checkpoint.open(folder)),
        "tokens": tokenizer.vocab_size,
        "stop_tokens": [tokenizer.decode([number], skip_special=False) for number in stops],
        "chat_template": tokenizer.chat_template is not None,
        "path": str(folder),
        "bytes": folder_bytes(folder),
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        "source": origin.source if origin else None,
        "revision": origin.revision if origin else None,
        "commit": origin.commit if origin else None,
    }
