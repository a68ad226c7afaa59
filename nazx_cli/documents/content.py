"""JSON that gives back any text exactly, dataclasses from it, and keys that name a value by its
content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from hashlib import blake2b
from typing import Any, TypeVar

_T = TypeVar("_T")
_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (float, int),
    "float | None": (float, int, type(None)),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
}
"""By a field's annotation, what JSON may have for it; of others their makers take care."""


def dumps(value: Any) -> bytes:
    """``value`` as compact JSON; keys keep their order, so equal values make equal bytes."""
    # Escaped, a high surrogate and a low one after it would come back as one character.
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def loads(data: bytes) -> Any:
    """The value of ``dumps``; ``ValueError`` for anything else."""
    return json.loads(data.decode("utf-8", "surrogatepass"))


def key_of(content: bytes) -> str:
    """A name for ``content``: BLAKE2b of 16 bytes, hexadecimal."""
    return blake2b(content, digest_size=16).hexdigest()


def made(kind: type[_T], data: Mapping[str, Any]) -> _T:
    """A dataclass from its fields; one that the record lacks is newer and has its default.

    ``TypeError`` where a value is of another type than its field.
    """
    types = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    for name in types.keys() & data.keys():
        known = _TYPES.get(types[name])
        if known is not None and type(data[name]) not in known:
            raise TypeError(f"{name} is a {type(data[name]).__name__}")
    return kind(**{name: value for name, value in data.items() if name in types})
