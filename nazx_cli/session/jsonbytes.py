"""JSON as bytes that give back any text exactly."""

from __future__ import annotations

import json
from typing import Any


def dumps(value: Any) -> bytes:
    """``value`` as compact JSON; keys keep their order, so equal values make equal bytes."""
    # Escaped, a high surrogate and a low one after it would come back as one character.
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def loads(data: bytes) -> Any:
    """The value of ``dumps``; ``ValueError`` for anything else."""
    return json.loads(data.decode("utf-8", "surrogatepass"))
