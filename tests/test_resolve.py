"""From a model's name to its folder: local paths, the registry, and the folder of models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import LLAMA, write_checkpoint
from resolve_helpers import error_of, resolve_model

from nazx_cli.catalog.model_ref import ModelRef
from nazx_cli.catalog.registry import Registry
from nazx_cli.catalog.stored import nazx_home
from nazx_cli.checkpoint.adapters.far import read_far_adapter
from nazx_cli.checkpoint.adapters.lora import read_adapter
from nazx_cli.checkpoint.atomic import building, put_in_place
from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.checkpoint.write import write_checkpoint as write_nazx

# Local folders and names


def test_a_local_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "mine", LLAMA)
    assert resolve_model(folder) == folder
    assert resolve_model(str(folder)) == folder


def test_a_bare_name_and_org_repo_may_be_local_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "org/repo", "nazx-1b"):
        write_checkpoint(tmp_path / name, LLAMA)
        assert resolve_model(name) == Path(name)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-nazx", "../nowhere"])
def test_a_path_that_leads_nowhere_is_said_to(name: str) -> None:
    assert f"no folder {name}" in error_of(name).message


def test_folders_and_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    assert "no config.json" in error_of(tmp_path).message
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "is a file" in error_of(tmp_path / "model.gguf").message
    (tmp_path / "config.json").write_text("{}")
    assert "GGUF" in error_of(tmp_path).message


def test_who_names_a_gguf_file_is_told_to_convert_it(tmp_path: Path) -> None:
    file = tmp_path / "m-Q4_K_M.gguf"
    file.write_bytes(b"GGUF")
    assert f"nazx convert {file} FOLDER" in error_of(file).hint
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    assert "config.json" in error_of(file).hint


def test_an_unknown_name_gets_its_nearest_neighbours() -> None:
    error = error_of("nazx-smol-135")
    assert "unknown model 'nazx-smol-135'" in error.message
    assert "nazx-smol-135m" in error.hint
    assert "ls --all" in error_of("something").hint  # a list of all would fill the screen
    assert "unknown model ''" in error_of("").message


# The registry


def test_the_default_model_comes_from_the_wheel_that_its_reader_was_trained_on_or_the_hub() -> None:
    registry = Registry.load()
    assert registry.default == registry.names[0] == "nazx-smol-135m"
    entry = registry.entries[registry.default]
    assert [type(source).__name__ for source in entry.sources] == ["PyPISource", "HubSource"]
    reader = ModelRef.parse(registry.default).adapters(None).reader
    assert reader is not None
    assert read_adapter(reader).notes["base_source"] == entry.sources[0].name
    far = ModelRef.parse(registry.default).adapters(None).far
    assert far is not None
    assert read_far_adapter(far).notes["base_source"] == entry.sources[0].name
    assert read_far_adapter(far).extended(entry.config).attention.far == "inattention"


def test_a_namespace_is_asked_first_and_left_out_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NAZX_HUB_NAMESPACE", "lab")
    entry = Registry.load().find("NAZX-1B")
    assert entry is not None
    assert [source.name for source in entry.sources] == ["lab/nazx-1b", "EleutherAI/pythia-1b"]
    monkeypatch.delenv("NAZX_HUB_NAMESPACE")
    entry = Registry.load().find("nazx-1b")
    assert entry is not None
    assert len(entry.sources) == 1


# Folders


def test_an_error_while_building_leaves_the_older_folder(tmp_path: Path) -> None:
    target = write_checkpoint(tmp_path / "model", LLAMA)
    with pytest.raises(KeyError), building(target) as scratch:
        (scratch / "new").mkdir()
        raise KeyError
    assert Checkpoint.open(target).shapes
    with building(target) as scratch:
        (scratch / "new").mkdir()
        (scratch / "new" / "marker").touch()
        put_in_place(scratch / "new", target, scratch)
    assert [path.name for path in target.iterdir()] == ["marker"]
    assert not list(tmp_path.glob(".model.*.partial"))


def test_a_written_checkpoint_reads_back(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 5),
        "b": torch.randn(7).half(),
        "c": torch.randn(4, 2, dtype=torch.float64),
        "d": torch.randn(5).bfloat16(),
    }
    write_nazx(tmp_path / "out", LLAMA, tensors, {"notes.txt": b"hi"}, max_shard_bytes=80)
    checkpoint = Checkpoint.open(tmp_path / "out")
    assert len(checkpoint.files) == 2
    for name, tensor in tensors.items():
        assert torch.equal(checkpoint.read(name), tensor)
    assert (tmp_path / "out" / "notes.txt").read_bytes() == b"hi"


def test_home_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert nazx_home() != tmp_path / "nazx"
    monkeypatch.delenv("NAZX_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert nazx_home() == tmp_path / "nazx"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert nazx_home() == Path.home() / ".local" / "share" / "nazx"
