"""JSON that gives back any text exactly, and keys that name a value by its content."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any


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
