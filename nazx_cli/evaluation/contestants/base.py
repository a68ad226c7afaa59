"""The contract: one that answers questions about documents, and what comes back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nazx_cli.evaluation.records import Read

if TYPE_CHECKING:
    from nazx_cli.documents.document import Document

_PIECES, _PIECE = 64, 1 << 16  # of a file of weights are hashed: so many, of so many bytes
_ANSWERS = "approximations"  # part of the evaluation, and of what is measured
_ASIDE = ("bench", "cli", "evaluation", "memory", "serving", "training", "ui")


@dataclass(frozen=True)
class Reply:
    """What came back; the fields are those of ``records.Record``."""

    answer: str | None
    passages: tuple[Read, ...] | None = None
    mode: str = ""
    finish: str = ""
    seconds: float = 0.0
    tokens: int = 0
    cites: bool = False
    cited: Read | None = None
    confidence: float | None = None
    runner_up: str | None = None
    error: str = ""


class Contestant(Protocol):
    """One that answers questions about documents.

    ``label`` names it in tables; ``identity`` is all that its answers depend on beside documents
    and questions, for the fingerprint; ``kinds`` are the kinds of questions that it answers.
    """

    @property
    def label(self) -> str: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    @property
    def kinds(self) -> frozenset[str]: ...

    def converse(self, documents: Sequence[Document], questions: Sequence[str]) -> Iterator[Reply]:
        """A reply to each of ``questions``, which are the turns of one conversation."""


@lru_cache(maxsize=32)
def model_identity(folder: Path) -> str:
    """Tells checkpoints apart by their small files and by pieces of the large ones, so that a
    model of many gigabytes is known in a moment."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".json", ".safetensors", ".jinja", ".gguf") or not path.is_file():
            continue
        size = path.stat().st_size
        whole.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            step = max(_PIECE, size // _PIECES)
            for at in range(0, size, step):
                file.seek(at)
                whole.update(file.read(_PIECE))
            file.seek(max(0, size - _PIECE))
            whole.update(file.read(_PIECE))
    return whole.hexdigest()[:16]


@lru_cache(maxsize=1)
def code_identity() -> str:
    """Tells versions of the code that makes answers apart."""
    package = Path(__file__).parents[2]
    whole = hashlib.sha256()
    sources = (path for kind in ("*.py", "*.c", "*.h") for path in package.rglob(kind))
    for path in sorted(sources):
        inside = path.relative_to(package)
        if inside.parts[0] not in _ASIDE or _ANSWERS in inside.parts:
            whole.update(f"{inside.as_posix()}\n".encode() + path.read_bytes())
    return whole.hexdigest()[:16]


def fingerprint(values: Mapping[str, Any]) -> str:
    """A short name for ``values``."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
