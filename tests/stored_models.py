"""A machine with two models on it, for the tests of what looks at models and removes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from checkpoints import GPT_NEOX, LLAMA, write_checkpoint
from cli_helpers import run_nazx
from fake_hub import FakeHub, FakeRepo
from resolve_helpers import resolve_model

PYTHIA = "EleutherAI/pythia-70m"


@contextmanager
def two_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A machine with ``org/tiny`` from a Hub and nazx-70m, made from the Hub's Pythia."""
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    repos = {}
    for name, config in (("org/tiny", LLAMA), (PYTHIA, GPT_NEOX)):
        folder = write_checkpoint(tmp_path / name.replace("/", "-"), config)
        repos[name] = FakeRepo({path.name: path.read_bytes() for path in folder.iterdir()})
    with FakeHub(repos) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        resolve_model("org/tiny")
        resolve_model("nazx-70m")
        yield hub


def facts(*arguments: str) -> Any:
    """What a command tells as JSON."""
    out, err, code = run_nazx(*arguments, "--json")
    assert (err, code) == ("", 0)
    return json.loads(out)


def weights_of(name: str) -> Path:
    return resolve_model(name, offline=True) / "model.safetensors"


def overwrite(path: Path, data: bytes) -> None:
    """Change a file where it lies, as a failing disk does: all its names see it."""
    path.resolve().chmod(0o644)
    path.resolve().write_bytes(data)
