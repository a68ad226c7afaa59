"""What the targets for a checkpoint's files share: a tiny one, and the commands that read it."""

from __future__ import annotations

import json
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from cli_helpers import tiny_checkpoint

from fuzz.law import Case

_COMMANDS = (
    ("show", "model"),
    ("show", "--json", "model"),
    ("verify", "model"),
    ("vram-estimate", "--model", "model"),
    ("ask", "--model", "model", "--max-tokens", "2", "Why?"),
    ("ask", "--model", "model", "--max-tokens", "2", "--file", "a.txt", "Why is it so?"),
    ("convert", "model", "out"),
)


@cache
def tiny_files() -> dict[str, bytes]:
    """The files of a tiny checkpoint by name."""
    with tempfile.TemporaryDirectory() as folder:
        tiny_checkpoint(Path(folder))
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return {**files, "generation_config.json": b'{"eos_token_id": [258], "bos_token_id": 257}'}


def model_case(rng: random.Random, name: str, changed: dict[str, bytes | None], *argv: str) -> Case:
    """A command (``argv``, or one that is drawn) about the tiny checkpoint with files changed, or
    left out where None."""
    files = {**tiny_files(), **changed}
    given = {f"model/{key}": data for key, data in files.items() if data is not None}
    given["a.txt"] = b"It is so. aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab It is not."
    return Case(name, argv or rng.choice(_COMMANDS), given, may_change=("out", ".out.lock"))


def as_json(value: Any) -> bytes:
    """JSON as a hostile writer may put it: values that it has no words for, halves of letters."""
    return json.dumps(value).encode("utf-8", "surrogatepass")
