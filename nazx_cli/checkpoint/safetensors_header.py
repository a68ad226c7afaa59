"""The header of a safetensors file, checked against the file's real size.

The format (https://github.com/huggingface/safetensors#format): 8 bytes of header length, little
endian; that many bytes of JSON; then the tensors' bytes. Reading only the header here means that
a truncated or damaged file is refused, with its name, before anything is allocated.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from nazx_cli.errors import ModelUnavailableError

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes of one element of each type whose elements are whole bytes."""

_MAX_HEADER = 100_000_000  # the limit of the safetensors library itself
_HINT = "fetch the model again"


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
                raise _error(path, f"it has {size} bytes and not even a header")
            if length > _MAX_HEADER:
                raise _error(path, f"its header claims {length:,} bytes")
            if size < 8 + length:
                raise _truncated(path, "header", 8 + length, size)
            raw = file.read(length)
    except OSError as error:
        raise ModelUnavailableError(f"cannot read {path}: {error.strerror}", _HINT) from None
    entries = _entries(path, raw, 8 + length)
    _check_extent(path, entries, size, 8 + length)
    return entries


def _entries(path: Path, raw: bytes, data_start: int) -> dict[str, TensorEntry]:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise _error(path, "its header is not valid JSON") from None
    if not isinstance(header, dict):
        raise _error(path, "its header is no JSON object")
    return {
        name: _entry(path, name, value, data_start)
        for name, value in header.items()
        if name != "__metadata__"
    }


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
        raise _error(path, f"its entry for {name!r} makes no sense")
    item = ITEM_BYTES.get(dtype)
    if item is not None and math.prod(shape) * item != offsets[1] - offsets[0]:
        raise _error(
            path,
            f"{name!r} is {dtype} {tuple(shape)}, {math.prod(shape) * item:,} bytes, "
            f"but {offsets[1] - offsets[0]:,} are set aside for it",
        )
    start, stop = (data_start + offset for offset in offsets)
    return TensorEntry(path, dtype, tuple(shape), start, stop)


def _check_extent(path: Path, entries: dict[str, TensorEntry], size: int, data_start: int) -> None:
    """The tensors lie end to end from the header to the end of the file."""
    at = data_start
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.stop)):
        if entry.start != at:
            raise _error(path, f"its tensors overlap or leave a gap at byte {at:,}")
        at = entry.stop
    if at > size:
        raise _error(path, f"it is truncated: its tensors need {at:,} bytes, the file has {size:,}")
    if at < size:
        raise _error(path, f"its tensors end at byte {at:,}, the file has {size:,}")


def _naturals(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _truncated(path: Path, what: str, needed: int, size: int) -> ModelUnavailableError:
    return _error(path, f"it is truncated: its {what} take {needed:,} bytes, it has {size:,}")


def _error(path: Path, reason: str) -> ModelUnavailableError:
    return ModelUnavailableError(f"{path} is damaged: {reason}", _HINT)
