"""``nazx verify`` on models of every kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from checkpoints import LLAMA, random_tensors, write_checkpoint
from cli_helpers import run_nazx as nazx
from fake_hub import FakeHub
from stored_models import PYTHIA, facts, overwrite, weights_of

from nazx_cli.catalog.stored import models_folder


def broken(name: str, wanted: str) -> None:
    """``verify`` finds ``name`` broken, says ``wanted``, and how to mend it."""
    out, err, code = nazx("verify", name, "--json")
    assert code == 5
    found = json.loads(out)
    assert not found["ok"] and wanted in found["problem"], found
    assert err.startswith("error: ") and err.count("\n") == 1
    assert found["next"] in err


def test_a_sound_model_passes_by_every_recorded_hash(hub: FakeHub) -> None:
    out, err, code = nazx("verify", "nazx-70m")
    assert (err, code) == ("verifying nazx-70m\n", 0)
    assert out.startswith("nazx-70m is whole: 40 tensors, ") and out.endswith(
        "files that match: 1\n"
    )
    assert facts("verify", "org/tiny")["hashed_files"] >= 1


def test_a_flipped_bit_is_found_and_the_repair_works(hub: FakeHub) -> None:
    path = weights_of("nazx-70m")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    overwrite(path, bytes(data))
    broken("nazx-70m", str(path))
    repair = json.loads(nazx("verify", "nazx-70m", "--json")[0])["next"]
    assert repair == f"nazx rm nazx-70m {PYTHIA} && nazx pull nazx-70m"
    assert nazx("rm", "nazx-70m", PYTHIA, "--yes")[2] == 0
    assert nazx("pull", "nazx-70m")[2] == 0
    assert facts("verify", "nazx-70m")["ok"]


def test_a_flipped_bit_in_a_hub_snapshot_is_found(hub: FakeHub) -> None:
    path = weights_of("org/tiny")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    overwrite(path, bytes(data))
    broken("org/tiny", "hash")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_that_are_not_finite_are_found(
    tmp_path: Path, value: float, dtype: torch.dtype
) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in random_tensors(LLAMA).items()}
    folder = write_checkpoint(tmp_path / "mine", LLAMA, tensors)
    assert facts("verify", str(folder))["ok"]
    tensors["model.layers.1.mlp.up_proj.weight"][5, 7] = value
    write_checkpoint(folder, LLAMA, tensors)
    broken(str(folder), "model.layers.1.mlp.up_proj.weight")


def test_large_finite_values_are_no_damage(tmp_path: Path) -> None:
    tensors = {name: tensor.half() for name, tensor in random_tensors(LLAMA).items()}
    tensors["model.norm.weight"][:] = 65504.0  # their sum is beyond float16
    folder = write_checkpoint(tmp_path / "mine", LLAMA, tensors)
    assert facts("verify", str(folder))["ok"]


def test_missing_and_misshapen_tensors_are_found(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    whole = dict(tensors)
    del tensors["model.layers.2.mlp.up_proj.weight"]
    broken(str(write_checkpoint(tmp_path / "a", LLAMA, tensors)), "lacks the tensor")
    whole["model.norm.weight"] = torch.ones(47)
    broken(str(write_checkpoint(tmp_path / "b", LLAMA, whole)), "has the shape")


def test_truncated_weights_and_a_broken_tokenizer_are_found(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "mine", LLAMA)
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text[:-40])
    broken(str(folder), "tokenizer.json")
    (folder / "tokenizer.json").write_text(text)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1])
    out, err, code = nazx("verify", str(folder))
    assert (out, code) == ("", 5)
    assert "model.safetensors" in err


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantized_model_is_verified_and_shown_as_what_it_is(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    source = write_checkpoint(tmp_path / "source", LLAMA)
    made = str(tmp_path / "made")
    assert nazx("quantize", str(source), made, "--kind", kind)[2] == 0
    assert facts("verify", made)["ok"]
    assert facts("show", made)["dtype"] == kind
    assert nazx("convert", made, str(tmp_path / "full"), "--attention", "full")[2] == 0
    assert facts("show", str(tmp_path / "full"))["dtype"] == kind


def test_verify_of_what_is_not_here_says_to_pull_it(hub: FakeHub) -> None:
    assert "nazx pull nazx-1b" in nazx("verify", "nazx-1b")[1]
    shutil.rmtree(models_folder() / "nazx-70m")
    assert nazx("verify", "nazx-70m")[2] == 5
