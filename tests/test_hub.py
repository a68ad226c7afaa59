"""Fetching from the Hub with the real client, against a small Hub on loopback."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import LLAMA, write_checkpoint
from fake_hub import LISTING, FakeHub, FakeRepo

from nazx_cli.catalog import patience
from nazx_cli.catalog.hub import (
    HubUnreachableError,
    cached_snapshot,
    check_reachable,
    repo_folder,
)
from nazx_cli.catalog.hub_download import download_snapshot, fetch_config
from nazx_cli.checkpoint.checkpoint import Checkpoint, is_complete
from nazx_cli.errors import ModelUnavailableError


@pytest.fixture
def repo(tmp_path: Path) -> FakeRepo:
    folder = write_checkpoint(tmp_path / "source", LLAMA)
    (folder / "generation_config.json").write_text('{"eos_token_id": 1}')
    return FakeRepo({path.name: path.read_bytes() for path in folder.iterdir()})


@pytest.fixture
def hub(repo: FakeRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for name in ("HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with FakeHub({"org/tiny": repo}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def error_of(name: str = "org/tiny", revision: str | None = None) -> ModelUnavailableError:
    with pytest.raises(ModelUnavailableError) as caught:
        download_snapshot(name, revision)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert cached_snapshot(name, revision) is None
    return caught.value


def without_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the client at a port where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")


def test_the_first_download_brings_what_is_needed_and_nothing_else(
    hub: FakeHub, repo: FakeRepo
) -> None:
    needed = dict(repo.files)
    needless = ("pytorch_model.bin", "README.md", "onnx/model.safetensors", "fp16.safetensors")
    repo.files.update(dict.fromkeys(needless, b"needless"))
    repo.files["../evil.safetensors"] = b"evil"
    folder = download_snapshot("org/tiny")
    assert {path.name for path in folder.iterdir()} == set(needed)
    assert not any(name in request for name in needless for request in hub.requests)
    for name, data in needed.items():
        assert (folder / name).read_bytes() == data


def test_a_second_call_uses_the_cache_without_any_request(hub: FakeHub) -> None:
    folder = download_snapshot("org/tiny")
    hub.requests.clear()
    assert download_snapshot("org/tiny") == folder
    assert download_snapshot("org/tiny", offline=True) == folder
    assert hub.requests == []


def test_offline_without_a_cached_model_is_refused_without_any_request(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelUnavailableError, match="offline"):
        download_snapshot("org/tiny", offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "offline" in error_of().message
    assert hub.requests == []


def test_shards_are_found_through_their_index(hub: FakeHub, repo: FakeRepo) -> None:
    data = repo.files.pop("model.safetensors")
    repo.files["model-00001-of-00001.safetensors"] = data
    names = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    names.pop("__metadata__", None)
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    repo.files["model.safetensors.index.json"] = json.dumps(index).encode()
    folder = download_snapshot("org/tiny")
    assert set(Checkpoint.open(folder).shapes) == set(names)


def test_an_index_that_points_outside_is_refused(hub: FakeHub, repo: FakeRepo) -> None:
    del repo.files["model.safetensors"]
    index = {"weight_map": {"x": "../../evil.safetensors"}}
    repo.files["model.safetensors.index.json"] = json.dumps(index).encode()
    assert "outside" in error_of().message


def test_progress_ends_with_every_byte(hub: FakeHub, repo: FakeRepo) -> None:
    seen: list[tuple[int, int]] = []
    download_snapshot("org/tiny", on_progress=lambda done, total: seen.append((done, total)))
    size = len(repo.files["model.safetensors"])
    assert seen[-1] == (size, size)


@pytest.mark.parametrize("revision", ["v1", "a" * 40])
def test_a_pinned_revision_is_fetched_and_then_cached(hub: FakeHub, revision: str) -> None:
    folder = download_snapshot("org/tiny", revision)
    hub.requests.clear()
    assert download_snapshot("org/tiny", revision) == folder
    assert hub.requests == []


def test_an_unknown_revision_is_named(hub: FakeHub) -> None:
    assert "no revision 'v9'" in error_of(revision="v9").message


def test_an_unknown_repository_is_named(hub: FakeHub) -> None:
    error = error_of("org/other")
    assert "no model org/other" in error.message
    assert "HF_TOKEN" in error.hint


def test_a_private_repository_opens_with_a_token(
    hub: FakeHub, repo: FakeRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.token = "secret"
    assert "HF_TOKEN" in error_of().hint
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert is_complete(download_snapshot("org/tiny"))


def test_a_gated_repository_says_to_accept_the_licence(hub: FakeHub, repo: FakeRepo) -> None:
    repo.token, repo.gated = "secret", True
    error = error_of()
    assert "gated" in error.message
    assert "licence" in error.hint


def test_a_repository_of_pickles_is_refused_before_they_are_fetched(
    hub: FakeHub, repo: FakeRepo
) -> None:
    repo.files["pytorch_model.bin"] = repo.files.pop("model.safetensors")
    assert "pickle" in error_of().message
    assert not any("resolve" in request for request in hub.requests)


def test_a_repository_of_ggufs_alone_says_how_to_take_one(hub: FakeHub, repo: FakeRepo) -> None:
    repo.files = {"README.md": b"", "tiny-q4_k_m.gguf": b"GGUF", "tiny-q8_0.gguf": b"GGUF"}
    error = error_of()
    assert "GGUF (tiny-q4_k_m.gguf)" in error.message and "nazx convert" in error.hint
    assert not any("resolve" in request for request in hub.requests)


def test_a_model_of_another_family_is_refused_before_its_weights_are_fetched(
    hub: FakeHub, repo: FakeRepo
) -> None:
    repo.files["config.json"] = json.dumps({**LLAMA, "model_type": "mamba"}).encode()
    assert "mamba" in error_of().message
    assert not any("GET" in line and "model.safetensors" in line for line in hub.requests)


def test_a_connection_cut_midway_leaves_nothing_that_is_taken_for_a_model(
    hub: FakeHub, repo: FakeRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits between tries
    repo.cut["model.safetensors"] = 7000
    error = error_of()
    assert isinstance(error, HubUnreachableError)
    assert "try again" in error.hint
    repo.cut.clear()
    assert is_complete(download_snapshot("org/tiny"))


def test_a_body_that_does_not_match_its_hash_is_refused_and_removed(
    hub: FakeHub, repo: FakeRepo
) -> None:
    body = bytearray(repo.files["model.safetensors"])
    body[-1] ^= 0xFF
    repo.altered["model.safetensors"] = bytes(body)
    assert "hash differs" in error_of().message
    repo.altered.clear()
    folder = download_snapshot("org/tiny")
    assert (folder / "model.safetensors").read_bytes() == repo.files["model.safetensors"]


def test_a_body_of_the_wrong_length_is_refused(hub: FakeHub, repo: FakeRepo) -> None:
    repo.altered["model.safetensors"] = repo.files["model.safetensors"][:-9]
    error_of()


def test_a_refused_connection_is_noticed_at_once(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_server(monkeypatch)
    start = time.monotonic()
    error = error_of()
    assert isinstance(error, HubUnreachableError)
    assert "127.0.0.1" in error.message
    assert time.monotonic() - start < 3


def test_a_hub_that_accepts_and_stays_silent_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(HubUnreachableError):
            check_reachable(0.3)
        assert time.monotonic() - start < 2


def test_a_cached_model_serves_while_the_hub_is_away(
    hub: FakeHub, repo: FakeRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    del repo.files["tokenizer_config.json"]  # so that a reachable Hub would be asked again
    folder = download_snapshot("org/tiny")
    without_server(monkeypatch)
    assert download_snapshot("org/tiny") == folder


@pytest.mark.parametrize("what", [LISTING, "config.json", "model.safetensors"])
def test_bytes_that_drip_are_given_up(
    hub: FakeHub, repo: FakeRepo, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(patience, "_WINDOWS", 0.4)
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
    repo.dripping.add(what)
    error = error_of()
    assert "0.4 seconds" in error.message
    assert "org/tiny" in error.message
    assert "HF_HUB_DOWNLOAD_TIMEOUT" in error.hint


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_body_longer_than_listed_is_not_fetched_to_its_end(
    hub: FakeHub, repo: FakeRepo, name: str
) -> None:
    repo.altered[name] = repo.files[name] + b"x" * (8 << 20)
    error = error_of()
    assert name in error.message
    assert "does not end" in error.message
    blobs = blobs_of()
    assert sum(path.stat().st_size for path in blobs) < 4 << 20
    repo.altered.clear()
    assert is_complete(download_snapshot("org/tiny"))


def blobs_of() -> list[Path]:
    return list((repo_folder("org/tiny") / "blobs").glob("*"))


@pytest.mark.parametrize(
    "listing",
    [
        *(b"<html>Log in</html>", b"", b"[]", b"{}", b"null", b'"x"', b'{"id": 1, "siblings": 3}'),
        b'{"id": "org/tiny", "sha": "a", "siblings": [{"rfilename": 5, "size": "x"}]}',
    ],
    ids=repr,
)
def test_an_answer_that_no_hub_gives_is_told(hub: FakeHub, repo: FakeRepo, listing: bytes) -> None:
    repo.listing = listing
    assert error_of().exit_code == 5


def test_a_network_to_log_in_to_is_told_from_a_hub(hub: FakeHub) -> None:
    hub.portal = b"<!DOCTYPE html><html>Welcome to the hotel</html>"
    error = error_of()
    assert "is no Hub" in error.message
    assert "log in" in error.hint
    with pytest.raises(ModelUnavailableError, match="is no Hub"):
        fetch_config("org/tiny")


@pytest.mark.parametrize("token", ["señal", "a\x01b", "\u202etoken"], ids=ascii)
def test_a_token_that_cannot_be_sent_is_named(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    error = error_of()
    assert "HF_TOKEN" in error.message
    assert token not in error.message
    assert hub.requests == []
