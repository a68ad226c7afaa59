"""A checkpoint folder on disk: which tensors it holds, and reading them one at a time.

The format of a file (https://github.com/huggingface/safetensors#format): 8 bytes of header length,
little endian; that many bytes of JSON; then the tensors' bytes. The header is held to the file's
real size, so that a truncated or damaged file is refused, with its name, before anything is
allocated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from nazx_cli.errors import ModelUnavailableError
from nazx_cli.foreign import FETCH_AGAIN, MAX_JSON_BYTES, parse_json, read_object

if TYPE_CHECKING:
    import torch

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
"""The types that NazX computes with, by safetensors' names: torch's names for them."""

_TORCH_NAMES = {**FLOATS, "I8": "int8", "U8": "uint8"}
_PIECE = 1 << 17  # numbers that are converted at a time; malloc keeps so little at hand
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_FOREIGN = f"the weights do not belong to its config.json; {FETCH_AGAIN}"
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""What a checkpoint folder holds beside its weights."""

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes of one element of each type whose elements are whole bytes."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file; its bytes are ``start`` to ``stop``, counted from the file's start."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Bytes that the tensor takes in the file."""
        return self.stop - self.start

    @property
    def torch_type(self) -> torch.dtype:
        """``dtype``, as torch knows it."""
        import torch

        found: torch.dtype = getattr(torch, _TORCH_NAMES[self.dtype])
        return found


class Checkpoint:
    """The weights of a folder, opened but not read: only headers have been looked at."""

    def __init__(self, folder: Path, entries: Mapping[str, TensorEntry]) -> None:
        self.folder = folder
        self.entries = {_text_name(name): entry for name, entry in entries.items()}

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Find the safetensors files of ``folder`` and check their headers.

        ``ModelUnavailableError`` where there are none, or where one is damaged.
        """
        if (folder / SINGLE_FILE).is_file():
            return cls(folder, read_header(folder / SINGLE_FILE))
        if (folder / INDEX_FILE).is_file():
            return cls(folder, _sharded(folder))
        if not folder.is_dir():
            raise ModelUnavailableError(
                f"there is no folder {folder}", "name a folder that holds model.safetensors"
            )
        raise no_weights(str(folder), sorted(path.name for path in folder.iterdir()))

    @property
    def files(self) -> tuple[Path, ...]:
        """The safetensors files that hold the tensors."""
        return tuple(dict.fromkeys(entry.file for entry in self.entries.values()))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor."""
        return {name: entry.shape for name, entry in self.entries.items()}

    @property
    def dtypes(self) -> dict[str, str]:
        """Element type of every tensor, in safetensors' words: ``F32``, ``BF16``, ..."""
        return {name: entry.dtype for name, entry in self.entries.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.nbytes for entry in self.entries.values())

    def check(
        self, expected: Mapping[str, tuple[int, ...]], stored_as: Mapping[str, str] | None = None
    ) -> None:
        """Hold the tensors to the names and shapes that a model needs; others are ignored.

        ``stored_as`` names those that are of another type than floating-point numbers.
        """
        missing = [name for name in expected if name not in self.entries]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ModelUnavailableError(
                f"{self.folder} lacks the tensor {missing[0]}{more}",
                _FOREIGN,
            )
        for name, shape in expected.items():
            entry = self.entries[name]
            if entry.shape != tuple(shape):
                raise ModelUnavailableError(
                    f"{entry.file}: {name} has the shape {entry.shape}, {tuple(shape)} is wanted",
                    _FOREIGN,
                )
            self._check_dtype(name, (stored_as or {}).get(name))

    def read(
        self, name: str, rows: slice | None = None, *, stored_as: str | None = None
    ) -> torch.Tensor:
        """The tensor ``name``, or ``rows`` of it, in the type it is stored in, on the CPU.

        ``stored_as`` is that type, as in ``dtypes``, where it is none of floating-point numbers.

        It is read, not mapped: mapped pages would count as this process's memory until the
        whole checkpoint is closed, and loading would seem to need the model twice.
        """
        if name not in self.entries:
            raise ModelUnavailableError(f"{self.folder} lacks the tensor {name}", FETCH_AGAIN)
        self._check_dtype(name, stored_as)
        import torch

        from nazx_cli.model.pages import empty

        entry = self.entries[name]
        start, stop, shape = entry.start, entry.stop, entry.shape
        if rows is not None:
            first, last, _ = rows.indices(shape[0])
            per_row = (stop - start) // max(shape[0], 1)
            shape = (max(last - first, 0), *shape[1:])
            start, stop = start + first * per_row, start + max(last, first) * per_row
        tensor = empty(shape, entry.torch_type, torch.device("cpu"))
        _read_bytes(entry, start, tensor)
        return tensor

    def read_into(self, name: str, out: torch.Tensor) -> None:
        """Fill ``out``, on the CPU and of the tensor's shape, in whatever type it is: without
        anything beside it where that is the type in the file, else a piece at a time."""
        self._check_dtype(name)
        entry = self.entries[name]
        if out.dtype == entry.torch_type and out.is_contiguous():
            _read_bytes(entry, entry.start, out)
        else:
            self._convert_into(name, out)

    def _convert_into(self, name: str, out: torch.Tensor) -> None:
        rows = len(out)
        step = max(1, _PIECE * rows // max(out.numel(), 1))
        for at in range(0, rows, step):
            part = slice(at, min(at + step, rows))
            out[part] = self.read(name, part)

    def type_of(self, name: str) -> torch.dtype:
        """The type in which ``read`` gives the tensor ``name``."""
        return self.entries[name].torch_type

    def _check_dtype(self, name: str, wanted: str | None = None) -> None:
        entry = self.entries[name]
        if wanted is not None and entry.dtype != wanted:
            raise ModelUnavailableError(
                f"{entry.file}: {name} is stored as {entry.dtype}, {wanted} is wanted",
                _FOREIGN,
            )
        if wanted is None and entry.dtype not in FLOATS:
            raise ModelUnavailableError(
                f"{entry.file}: {name} is stored as {entry.dtype}, which NazX cannot compute with",
                f"use a checkpoint in {', '.join(tuple(FLOATS)[:3])}",
            )


def _read_bytes(entry: TensorEntry, start: int, out: torch.Tensor) -> None:
    """Fill ``out``, which is contiguous, with the bytes of the file from ``start`` on."""
    import torch

    if not out.numel():
        return
    data = out.view(-1).view(torch.uint8).numpy().data
    try:
        with entry.file.open("rb") as file:
            file.seek(start)
            got = file.readinto(data)
    except OSError as error:
        raise ModelUnavailableError(f"cannot read {entry.file}: {error}", FETCH_AGAIN) from None
    if got != len(data):
        raise ModelUnavailableError(f"{entry.file} ends too early", FETCH_AGAIN)


def _text_name(name: str) -> str:
    """A tensor's name as models of text alone have it: the text part of one that sees pictures
    is kept below ``language_model``."""
    if name.startswith("model.language_model."):
        return f"model.{name.removeprefix('model.language_model.')}"
    return name.removeprefix("language_model.")


def folder_bytes(folder: Path) -> int:
    """Bytes of the files of a checkpoint folder, links followed."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def is_complete(folder: Path) -> bool:
    """Whether ``folder`` holds a whole checkpoint; looks at headers only."""
    if not all((folder / name).is_file() for name in ("config.json", "tokenizer.json")):
        return False
    try:
        Checkpoint.open(folder)
    except ModelUnavailableError:
        return False
    return True


def _sharded(folder: Path) -> dict[str, TensorEntry]:
    placed = read_index(folder / INDEX_FILE)
    shards = {}
    for file in dict.fromkeys(placed.values()):
        if not (folder / file).is_file():
            raise ModelUnavailableError(
                f"{folder} lacks the file {file} that {INDEX_FILE} names", FETCH_AGAIN
            )
        shards[file] = read_header(folder / file)
    entries = {}
    for name, file in placed.items():
        if name not in shards[file]:
            raise ModelUnavailableError(
                f"{folder / file} lacks the tensor {name} that {INDEX_FILE} places there",
                FETCH_AGAIN,
            )
        entries[name] = shards[file][name]
    if not entries:
        raise ModelUnavailableError(f"{folder / INDEX_FILE} names no tensors", FETCH_AGAIN)
    return entries


def read_index(path: Path, hint: str = FETCH_AGAIN) -> dict[str, str]:
    """The name of the shard that each tensor lies in, as an index of shards says.

    ``ModelUnavailableError`` where it makes no sense (then ``hint`` is what to do), or where a
    shard would lie outside its folder or is no safetensors file.
    """
    placed = read_object(path, hint).get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(at, str) for at in placed.values()):
        raise ModelUnavailableError(f"{path} is no usable index of shards", hint)
    for file in dict.fromkeys(placed.values()):
        _check_shard_name(file, path)
    return placed


def _check_shard_name(name: str, index: Path) -> None:
    if name.startswith(".") or any(sign in name for sign in "/\\:\0"):
        raise ModelUnavailableError(
            f"{index} points outside its folder, to {name!r}",
            "the checkpoint is not to be trusted; take another",
        )
    if not name.endswith(".safetensors"):
        raise ModelUnavailableError(
            f"{index} names {name!r}, which is no safetensors file",
            "NazX reads safetensors only; take another checkpoint",
        )


def no_weights(place: str, names: Sequence[str]) -> ModelUnavailableError:
    """The complaint about a folder or repository ``place`` whose files ``names`` hold no weights
    that can be read; it says what they hold instead."""
    pickles = [name for name in names if name.endswith(_PICKLES) and not name.startswith(".")]
    ggufs = [name for name in names if name.endswith(".gguf")]
    if pickles:
        return ModelUnavailableError(
            f"{place} holds its weights only as a pickle file ({pickles[0]}), "
            "which NazX never reads, since a pickle can run any code",
            "save the model as safetensors with the program that made it, or take another",
        )
    if ggufs:
        return ModelUnavailableError(
            f"{place} holds its weights as GGUF ({ggufs[0]}), which has to be converted first",
            "fetch that file and nazx convert FILE.gguf FOLDER, or name one with model.safetensors",
        )
    return ModelUnavailableError(
        f"{place} holds no weights: neither {SINGLE_FILE} nor {INDEX_FILE}",
        "name a folder or repository with model.safetensors, or fetch the model again",
    )


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Every tensor that ``path`` holds, in file order.

    ``ModelUnavailableError`` where the file is missing, truncated, longer than its header says,
    or where its header makes no sense.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8:
                raise _damaged(path, f"it has {size} bytes and not even a header")
            if length > MAX_JSON_BYTES:
                raise _damaged(path, f"its header claims {length:,} bytes")
            if size < 8 + length:
                raise _damaged(
                    path,
                    f"it is truncated: its header takes {8 + length:,} bytes, it has {size:,}",
                )
            raw = file.read(length)
    except OSError as error:
        raise ModelUnavailableError(f"cannot read {path}: {error.strerror}", FETCH_AGAIN) from None
    try:
        header = parse_json(raw)
    except ValueError as error:
        raise _damaged(path, f"its header is not valid JSON: {error}") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no JSON object")
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, value, 8 + length) for name, value in header.items()}
    _check_extent(path, entries, size, 8 + length)
    return entries


def _entry(path: Path, name: str, value: Any, data_start: int) -> TensorEntry:
    entry = value if isinstance(value, dict) else {}
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if (
        not isinstance(dtype, str)
        or not _naturals(shape)
        or not _naturals(offsets)
        or len(offsets) != 2
        or offsets[0] > offsets[1]
    ):
        raise _damaged(path, f"its entry for {name!r} makes no sense")
    found = TensorEntry(path, dtype, tuple(shape), *(data_start + offset for offset in offsets))
    needed = math.prod(shape) * ITEM_BYTES.get(dtype, 0)
    if dtype in ITEM_BYTES and needed != found.nbytes:
        raise _damaged(
            path,
            f"{name!r} is {dtype} {found.shape}, {needed:,} bytes, "
            f"but {found.nbytes:,} are set aside for it",
        )
    return found


def _check_extent(path: Path, entries: dict[str, TensorEntry], size: int, data_start: int) -> None:
    """The tensors lie end to end from the header to the end of the file."""
    at = data_start
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.stop)):
        if entry.start != at:
            raise _damaged(path, f"its tensors overlap or leave a gap at byte {at:,}")
        at = entry.stop
    if at > size:
        raise _damaged(
            path, f"it is truncated: its tensors need {at:,} bytes, the file has {size:,}"
        )
    if at < size:
        raise _damaged(path, f"its tensors end at byte {at:,}, the file has {size:,}")


def _naturals(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _damaged(path: Path, reason: str) -> ModelUnavailableError:
    return ModelUnavailableError(f"{path} is damaged: {reason}", FETCH_AGAIN)
