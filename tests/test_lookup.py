"""Configurations by name: from a folder, the registry, and a Hub repository's config alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import LLAMA, write_checkpoint
from cli_helpers import run_nazx
from fake_hub import FakeHub, FakeRepo

from nazx_cli.catalog.hub import cached_snapshot
from nazx_cli.catalog.model_ref import ModelRef
from nazx_cli.catalog.registry import Registry
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError, UsageError


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for name in ("HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    folder = write_checkpoint(tmp_path / "tiny", LLAMA)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with FakeHub({"org/tiny": FakeRepo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def test_a_folder_and_a_registry_name_need_no_network(tmp_path: Path) -> None:
    assert ModelRef.parse(
        write_checkpoint(tmp_path / "model", LLAMA)
    ).config() == ModelConfig.from_dict(LLAMA)
    for name in Registry.load().names:
        entry = Registry.load().find(name)
        assert entry is not None and ModelRef.parse(name).config() == entry.config


def test_every_kind_of_name_answers_the_same_questions(hub: FakeHub, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model", LLAMA)
    local, known, remote = map(ModelRef.parse, (folder, "NazX-Smol-135M@v1", "org/tiny@main"))
    assert [each.pinned for each in (local, known, remote)] == [
        str(folder),
        "nazx-smol-135m@v1",
        "org/tiny@main",
    ]
    assert [each.present() for each in (local, known, remote)] == [folder, None, None]
    assert local.fetch() == local.place() == folder
    for absent in (known, remote):
        for ask in (absent.place, absent.removal):
            with pytest.raises(ModelUnavailableError, match=rf"{absent.word} is not on this"):
                ask()
        assert absent.repair_command() == f"nazx rm {absent.pinned} && nazx pull {absent.pinned}"
    assert known.describe()["present"] is False
    with pytest.raises(ModelUnavailableError, match="not on this machine"):
        remote.describe()
    with pytest.raises(UsageError, match="a folder of yours"):
        local.removal()
    fetched = remote.fetch()
    assert remote.present() == remote.place() == fetched == Path(remote.describe()["path"])
    assert remote.removal().folders == (fetched,)
    remote.removal().execute()
    assert remote.present() is None


def test_a_repository_is_estimated_from_its_config_alone(hub: FakeHub) -> None:
    out, _, code = run_nazx("vram-estimate", "-m", "org/tiny", "--ctx", "100", "--json")
    assert code == 0
    assert json.loads(out)["parameters"] == ModelConfig.from_dict(LLAMA).num_parameters
    assert cached_snapshot("org/tiny") is None  # a config alone is never taken for a model
    del hub.repos["org/tiny"]
    assert ModelRef.parse("org/tiny").config() == ModelConfig.from_dict(
        LLAMA
    )  # the second time from the cache


def test_a_repository_that_is_not_there_is_an_error_with_a_next_step(hub: FakeHub) -> None:
    with pytest.raises(ModelUnavailableError) as caught:
        ModelRef.parse("org/absent").config()
    assert caught.value.hint
    with pytest.raises(ModelUnavailableError, match="offline"):
        ModelRef.parse("org/absent").config(offline=True)
