"""The models on this machine: converted ones of NazX's own, and snapshots in the Hub's cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nazx_cli.catalog.home import models_folder
from nazx_cli.catalog.hub import snapshot_origin
from nazx_cli.catalog.hub_cache import cached_snapshots
from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.checkpoint.convert import is_complete
from nazx_cli.checkpoint.quantized_format import stored_kind
from nazx_cli.checkpoint.write import Origin
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class StoredModel:
    """A model on this machine; ``place`` is nazx or hub, ``problem`` says why it is unusable.

    ``nbytes`` counts its files; a converted model may share them with the Hub's cache.
    """

    name: str
    folder: Path
    place: str
    nbytes: int
    config: ModelConfig | None = None
    dtype: str = ""
    origin: Origin | None = None
    problem: str = ""


def stored_models() -> list[StoredModel]:
    """Converted models by name, damaged ones too, then usable snapshots in the Hub's cache."""
    return [*_converted(), *_cached()]


def checkpoint_bytes(folder: Path) -> int:
    """Bytes of the files of a checkpoint folder, links followed."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def weights_dtype(config: ModelConfig, checkpoint: Checkpoint) -> str:
    """int8 or nf4 of quantized weights, else the type of most of their bytes in torch's words."""
    kind = stored_kind(config)
    if kind is not None:
        return kind
    weight: Counter[str] = Counter()
    for entry in checkpoint.entries.values():
        weight[entry.dtype] += entry.nbytes
    most = max(weight, key=lambda kind: weight[kind], default="")
    return _DTYPES.get(most, most.lower())


def _converted() -> Iterator[StoredModel]:
    folders = [path for path in models_folder().glob("[!.]*") if path.is_dir()]
    for folder in sorted(folders):
        origin = Origin.read(folder)
        name = folder.name
        if origin is not None and origin.revision:
            name = f"{name.partition('@')[0]}@{origin.revision}"
        yield _stored(name, folder, "nazx", origin)


def _cached() -> Iterator[StoredModel]:
    seen: set[str] = set()
    for snapshot in cached_snapshots():
        if not is_complete(snapshot.folder):
            continue
        name = snapshot.repo
        if name in seen:  # the first is the one that the bare name means
            pinned = snapshot.refs[0] if snapshot.refs else snapshot.folder.name[:12]
            name = f"{name}@{pinned}"
        seen.add(name)
        model = _stored(name, snapshot.folder, "hub", snapshot_origin(snapshot.folder))
        if not model.problem:
            yield model


def _stored(name: str, folder: Path, place: str, origin: Origin | None) -> StoredModel:
    nbytes = checkpoint_bytes(folder)
    try:
        config = ModelConfig.from_folder(folder)
        dtype = weights_dtype(config, Checkpoint.open(folder))
        if not (folder / "tokenizer.json").is_file():
            raise ModelUnavailableError(f"{folder} has no tokenizer.json")
    except ModelUnavailableError as error:
        return StoredModel(name, folder, place, nbytes, origin=origin, problem=error.message)
    return StoredModel(name, folder, place, nbytes, config, dtype, origin)
