"""What a session file says of itself and gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.checkpoint.atomic import sha256_of

if TYPE_CHECKING:
    from nazx_cli.session.state import State


@dataclass(frozen=True)
class ModelTag:
    """Which model a session belongs to: the name it was loaded by (revision included) and the
    SHA-256 of its ``tokenizer.json`` and ``config.json``."""

    name: str
    tokenizer_sha256: str
    config_sha256: str

    @classmethod
    def of(cls, folder: Path, name: str) -> ModelTag:
        """The tag of the checkpoint in ``folder``; ``OSError`` where it has lost its files."""
        return cls(name, sha256_of(folder / "tokenizer.json"), sha256_of(folder / "config.json"))

    def difference(self, other: ModelTag) -> str:
        """What keeps ``other`` from standing in for this model, in a few words; empty: nothing."""
        if self.tokenizer_sha256 != other.tokenizer_sha256:
            return "its tokenizer differs"
        if self.config_sha256 != other.config_sha256:
            return "its configuration differs"
        return ""


@dataclass(frozen=True)
class Saved:
    """A session as it was saved: the state of each branch, the present branch, and the files
    that are watched."""

    branches: Mapping[str, State]
    branch: str
    watched: frozenset[str]


@dataclass(frozen=True)
class SessionInfo:
    """A session in a list.

    ``turns``, ``documents`` and ``tokens`` (of the documents) are those of its present branch;
    ``saved`` is aware of its time zone, ``nbytes`` the file's size, ``open_by`` the process that
    has it open (None: nobody). ``problem`` says why the file cannot be read; where it does, all
    but name, time and size are empty.
    """

    name: str
    model: str
    turns: int
    documents: int
    tokens: int
    saved: datetime
    nbytes: int
    open_by: int | None = None
    problem: str = ""
