"""Writing a checkpoint folder, one tensor in memory at a time, and where it came from beside it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nazx_cli.checkpoint.atomic import building, explained, put_in_place
from nazx_cli.checkpoint.checkpoint import FLOATS, INDEX_FILE, ITEM_BYTES, SINGLE_FILE
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError, UsageError
from nazx_cli.foreign import read_object
from nazx_cli.names import OnProgress

if TYPE_CHECKING:
    import torch

MAX_SHARD_BYTES = 4_000_000_000
STORED_AS = {name: stored for stored, name in FLOATS.items()}
"""Types of numbers as safetensors names them, by torch's names."""


@dataclass(frozen=True)
class PendingTensor:
    """A tensor that is made when it is written: ``load`` returns its bytes, row-major."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    load: Callable[[], memoryview]

    @property
    def nbytes(self) -> int:
        """Bytes that ``load`` has to return."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    @classmethod
    def from_torch(cls, name: str, tensor: torch.Tensor) -> PendingTensor:
        """A tensor that is there already."""
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind not in STORED_AS:
            raise ModelUnavailableError(
                f"{name} is of type {kind}, which a checkpoint cannot hold",
                f"convert it to one of {', '.join(STORED_AS)}",
            )

        return cls(name, STORED_AS[kind], tuple(tensor.shape), lambda: tensor_bytes(tensor))


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor, row-major, of which none is copied that lies so on the CPU."""
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor] | Iterable[PendingTensor],
    files: Mapping[str, bytes | Path] | None = None,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_progress: OnProgress | None = None,
) -> None:
    """Write a checkpoint so that ``folder`` appears whole or not at all; it replaces an older one.

    ``files`` are the other files by name (tokenizer and so on), as bytes or copied from a path.
    """
    if isinstance(tensors, Mapping):
        pending = [PendingTensor.from_torch(name, tensor) for name, tensor in tensors.items()]
    else:
        pending = list(tensors)
    with building(folder) as scratch:
        new = scratch / "new"
        fill_folder(new, config, files or {})
        write_weights(new, pending, max_shard_bytes=max_shard_bytes, on_progress=on_progress)
        put_in_place(new, folder, scratch)


@contextmanager
def building_checkpoint(dest: Path, *, replace: bool) -> Iterator[Path]:
    """A folder to make and fill, which becomes ``dest`` when the body ends; else nothing is left.

    Call ``check_dest`` before anything that takes time.
    """
    with building(dest, keep_lock=False) as scratch:
        yield scratch / "new"
        check_dest(dest, replace=replace)
        put_in_place(scratch / "new", dest, scratch)


def check_dest(dest: Path, *, replace: bool) -> None:
    """``UsageError`` where a checkpoint cannot be made at ``dest``, or not without ``replace``."""
    if not dest.exists() or (dest.is_dir() and not any(dest.iterdir())):
        return
    if not replace:
        raise UsageError(f"{dest} is there already", "name another folder, or add --force")
    if not (dest / "config.json").is_file():
        raise UsageError(
            f"{dest} is no checkpoint, and is not replaced by one", "name another folder"
        )


def fill_folder(folder: Path, config: Mapping[str, Any], files: Mapping[str, bytes | Path]) -> None:
    """Make ``folder`` with its ``config.json``, once that proves readable, and its ``files``."""
    ModelConfig.from_dict(config)
    with explained(folder):
        folder.mkdir(parents=True)
        for name, content in files.items():
            data = content.read_bytes() if isinstance(content, Path) else content
            (folder / name).write_bytes(data)
        (folder / "config.json").write_bytes(to_json(config))


def to_json(data: Any) -> bytes:
    """JSON as people read it, ending in a line break."""
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def write_weights(
    folder: Path,
    tensors: Sequence[PendingTensor],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_progress: OnProgress | None = None,
) -> None:
    """Write ``tensors`` as one safetensors file, or as shards with an index where they are more
    than ``max_shard_bytes``."""
    shards = _shards(tensors, max_shard_bytes)
    total = sum(tensor.nbytes for tensor in tensors)
    done = 0
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        path = folder / (name if len(shards) > 1 else SINGLE_FILE)
        for written in _write_file(path, shard):
            done += written
            if on_progress:
                on_progress(done, total)
        weight_map.update(dict.fromkeys((tensor.name for tensor in shard), name))
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        with explained(folder):
            (folder / INDEX_FILE).write_bytes(to_json(index))


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write one safetensors file."""
    for _ in _write_file(path, [PendingTensor.from_torch(n, t) for n, t in tensors.items()]):
        pass


def _shards(tensors: Sequence[PendingTensor], limit: int) -> list[list[PendingTensor]]:
    """Consecutive tensors in groups of at most ``limit`` bytes; one larger tensor stands alone."""
    shards: list[list[PendingTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards


def _write_file(path: Path, tensors: Sequence[PendingTensor]) -> Iterable[int]:
    """Write one safetensors file, yielding the bytes of each tensor as it is written."""
    # Wide types first: every tensor then starts at a multiple of its item size.
    ordered = sorted(tensors, key=lambda tensor: -ITEM_BYTES[tensor.dtype])
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in ordered:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with explained(path), path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for tensor in ordered:
            data = tensor.load()
            if data.nbytes != tensor.nbytes:
                raise ModelUnavailableError(
                    f"{tensor.name} came out as {data.nbytes:,} bytes, not {tensor.nbytes:,}",
                    "the source is damaged; fetch it again",
                )
            file.write(data)
            yield tensor.nbytes


SHA256 = re.compile(r"[0-9a-f]{64}")
ORIGIN_FILE = "nazx_source.json"


@dataclass(frozen=True)
class Origin:
    """A source: ``kind`` is hub, pypi, folder or gguf; ``source`` its repository, package or path.

    ``commit`` fixes a Hub repository, ``revision`` is the name it was asked for by. ``sha256`` are
    the hashes of the weight files, where they are known.
    """

    kind: str
    source: str
    revision: str | None = None
    commit: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)

    def is_same(self, other: Origin | None) -> bool:
        """Whether ``other`` names the same bytes."""
        return other is not None and (self.kind, self.source, self.commit) == (
            other.kind,
            other.source,
            other.commit,
        )

    def write(self, folder: Path) -> None:
        """Keep it in ``folder``."""
        with explained(folder):
            (folder / ORIGIN_FILE).write_bytes(to_json(asdict(self)))

    @classmethod
    def of(cls, folder: Path, revision: str | None = None) -> Origin | None:
        """Where the checkpoint ``folder`` came from; None where nothing tells.

        A snapshot in the Hub's cache says it by its place; ``revision`` is what it was asked for
        by. Other folders keep a file about it.
        """
        snapshots, repo = folder.parent, folder.parent.parent.name
        if snapshots.name != "snapshots" or not repo.startswith("models--"):
            return cls.read(folder)
        blobs = {path.name: path.resolve().name for path in folder.glob("*.safetensors")}
        hashes = {name: blob for name, blob in blobs.items() if SHA256.fullmatch(blob)}
        source = repo.removeprefix("models--").replace("--", "/", 1)
        return cls("hub", source, revision, folder.name, hashes)

    @classmethod
    def read(cls, folder: Path) -> Origin | None:
        """What ``folder`` says of itself; None where it says nothing usable."""
        try:
            data = read_object(folder / ORIGIN_FILE)
            hashes = {str(name): str(value) for name, value in dict(data["sha256"]).items()}
            texts = {key: data.get(key) for key in ("revision", "commit")}
            if any(not isinstance(value, str | None) for value in texts.values()):
                return None
            return cls(str(data["kind"]), str(data["source"]), **texts, sha256=hashes)
        except (ModelUnavailableError, OSError, ValueError, KeyError, TypeError):
            return None

    def __str__(self) -> str:
        return f"{self.source} at {self.commit[:12]}" if self.commit else self.source
