"""The header of a GGUF file: metadata and where the tensors lie.

The format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2 and 3, little
endian: magic, version, number of tensors, number of entries; entries of key, type and value;
tensors of name, dimensions, type and offset; then, aligned, the tensors' bytes. Every length is
held to the bytes that are there before anything is made from it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAX_HEADER = 256 << 20
_MAX_ITEMS = 1 << 23  # of all lists together; a vocabulary of a million tokens has four of them
_MAX_DIMENSIONS = 4
_NUMBERS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _LIST = 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: ``kind`` is its type as GGUF names it, ``shape`` (rows first) counts elements,
    its ``nbytes`` bytes begin at ``start`` of the file."""

    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass(frozen=True)
class GgufHeader:
    """What stands before the tensors: values by key, tensors by name, in the file's order."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


def read_header(path: Path) -> GgufHeader:
    """Read the header of ``path``; ``ValueError`` says what is wrong with it, ``OSError`` that it
    cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        cursor = _Cursor(file.read(_MAX_HEADER))
    if cursor.take(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version = cursor.number("I")
    if version not in (2, 3):
        raise ValueError(f"it is of version {version}, NazX reads 2 and 3, little endian")
    tensor_count, entry_count = cursor.number("Q"), cursor.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(entry_count):
        key = cursor.text()
        if key in metadata:
            raise ValueError(f"it says {key[:60]!r} twice")
        metadata[key] = cursor.value(cursor.number("I"))
    found = [_tensor(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1:
        raise ValueError("general.alignment is no size")
    begin = -(-cursor.at // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for name, kind, shape, offset in found:
        if name in tensors:
            raise ValueError(f"it has the tensor {name[:60]!r} twice")
        tensors[name] = GgufTensor(name, kind, shape, begin + offset, _nbytes(name, kind, shape))
        if tensors[name].start + tensors[name].nbytes > size:
            raise ValueError(f"it ends before its tensor {name[:60]!r} does")
    return GgufHeader(metadata, tensors)


def _tensor(cursor: _Cursor) -> tuple[str, str, tuple[int, ...], int]:
    from gguf import GGMLQuantizationType

    name = cursor.text()
    dimensions = cursor.number("I")
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise ValueError(f"its tensor {name[:60]!r} has {dimensions:,} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))
    kind, offset = cursor.number("I"), cursor.number("Q")
    try:
        known = GGMLQuantizationType(kind).name
    except ValueError:
        raise ValueError(f"its tensor {name[:60]!r} is of the unknown type {kind}") from None
    return name, known, shape[::-1], offset


def _nbytes(name: str, kind: str, shape: tuple[int, ...]) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    if shape[-1] % block:
        raise ValueError(f"the rows of its tensor {name[:60]!r} are no multiple of {block}")
    return math.prod(shape) // block * block_bytes


class _Cursor:
    """Reads one value after another; ``ValueError`` at the end of the bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._items = 0
        self.at = 0

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self.at:
            raise ValueError("it ends within its header, or that is larger than any real one")
        self.at += count
        return self._data[self.at - count : self.at]

    def number(self, code: str) -> Any:
        form = struct.Struct(f"<{code}")
        return form.unpack(self.take(form.size))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode()

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _LIST or depth > 1:
            raise ValueError(f"its metadata has a value of the type {kind}")
        return self._list(depth)

    def _list(self, depth: int) -> list[Any]:
        kind, count = self.number("I"), self.number("Q")
        self._items += count
        if self._items > _MAX_ITEMS:
            raise ValueError(f"its metadata has lists of {self._items:,} values")
        if kind in _NUMBERS:
            form = struct.Struct(f"<{count}{_NUMBERS[kind]}")
            return list(form.unpack(self.take(form.size)))
        return [self.value(kind, depth + 1) for _ in range(count)]
