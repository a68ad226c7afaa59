"""Reading and checking safetensors checkpoints, sound ones and broken ones."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.errors import ModelUnavailableError

TENSORS = {
    "embed.weight": torch.arange(24, dtype=torch.float32).reshape(6, 4),
    "norm.weight": torch.ones(4, dtype=torch.bfloat16),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path


def write_shards(folder: Path, weight_map: dict[str, str]) -> None:
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def error_of(folder: Path, expected: dict[str, tuple[int, ...]] | None = None) -> str:
    with pytest.raises(ModelUnavailableError) as caught:
        Checkpoint.open(folder).check(expected or {})
    assert caught.value.exit_code == 5
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value.message


def rewrite_header(folder: Path, change: object) -> None:
    """Pass the parsed header of ``model.safetensors`` through ``change`` and put it back."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)  # type: ignore[operator]
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data[8 + length :])


def test_names_shapes_types_and_values_come_back(folder: Path) -> None:
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.shapes == {"embed.weight": (6, 4), "norm.weight": (4,)}
    assert checkpoint.dtypes == {"embed.weight": "F32", "norm.weight": "BF16"}
    assert checkpoint.nbytes == 24 * 4 + 4 * 2
    for name, tensor in TENSORS.items():
        assert torch.equal(checkpoint.read(name), tensor)
    assert torch.equal(checkpoint.read("embed.weight", slice(2, 5)), TENSORS["embed.weight"][2:5])


@pytest.mark.parametrize("stored", (torch.float32, torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("wanted", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("shape", ((0,), (0, 3), (3, 0), (1,), (7, 5), (700, 401), (3, 200_001)))
def test_tensors_are_read_into_their_places(
    tmp_path: Path, stored: torch.dtype, wanted: torch.dtype, shape: tuple[int, ...]
) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(5)).to(stored)
    save_file({"a": torch.ones(3), "b": tensor}, tmp_path / "model.safetensors")
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.type_of("b") == stored
    around = torch.full((shape[0] + 2, *shape[1:]), 7.0, dtype=wanted)
    checkpoint.read_into("b", around[1:-1])
    assert torch.equal(around[1:-1], tensor.to(wanted))
    assert bool((around[[0, -1]] == 7).all())
    across = torch.zeros(*shape[::-1], dtype=wanted).t() if len(shape) == 2 else torch.zeros(shape)
    checkpoint.read_into("b", across)  # not one row after another
    assert torch.equal(across, tensor.to(across.dtype))


@pytest.mark.parametrize("wanted", (torch.float32, torch.bfloat16), ids=str)
def test_a_file_that_shrinks_while_it_is_read_is_named(folder: Path, wanted: torch.dtype) -> None:
    checkpoint = Checkpoint.open(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelUnavailableError, match=r"model\.safetensors ends too early"):
        checkpoint.read_into("embed.weight", torch.empty(6, 4, dtype=wanted))
    path.unlink()
    with pytest.raises(ModelUnavailableError, match="cannot read"):
        checkpoint.read_into("embed.weight", torch.empty(6, 4, dtype=wanted))


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    for file, name in (("a.safetensors", "embed.weight"), ("b.safetensors", "norm.weight")):
        save_file({name: TENSORS[name]}, tmp_path / file)
    write_shards(tmp_path, {"embed.weight": "a.safetensors", "norm.weight": "b.safetensors"})
    checkpoint = Checkpoint.open(tmp_path)
    assert [path.name for path in checkpoint.files] == ["a.safetensors", "b.safetensors"]
    assert torch.equal(checkpoint.read("norm.weight"), TENSORS["norm.weight"])


def test_extra_tensors_of_any_type_are_ignored(folder: Path) -> None:
    save_file({**TENSORS, "mask": torch.ones(3, dtype=torch.bool)}, folder / "model.safetensors")
    Checkpoint.open(folder).check({"embed.weight": (6, 4)})


def test_a_missing_tensor_is_named_and_the_others_counted(folder: Path) -> None:
    message = error_of(
        folder, {"embed.weight": (6, 4), "head.weight": (6, 4), "x": (1,), "y": (1,)}
    )
    assert "head.weight and 2 more" in message


def test_a_misshapen_tensor_is_named_with_both_shapes(folder: Path) -> None:
    message = error_of(folder, {"embed.weight": (6, 8)})
    assert "embed.weight" in message
    assert "(6, 4)" in message
    assert "(6, 8)" in message


def test_a_needed_tensor_of_whole_numbers_is_refused(folder: Path) -> None:
    save_file({"embed.weight": torch.ones(6, 4, dtype=torch.int8)}, folder / "model.safetensors")
    assert "I8" in error_of(folder, {"embed.weight": (6, 4)})


@pytest.mark.parametrize("kept", [0, 5, 8, 40, -1, -50])
def test_a_truncated_file_is_refused_with_its_name(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    message = error_of(folder)
    assert str(path) in message
    assert "bytes" in message


def test_a_truncated_file_is_refused_with_both_byte_counts(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    message = error_of(folder)
    assert f"{len(data):,}" in message
    assert f"{len(data) - 10:,}" in message


def test_trailing_bytes_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"extra")
    assert "damaged" in error_of(folder)


def test_an_absurd_header_length_is_refused_before_it_is_read(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 7 + b"\x7f" + b"{}")
    assert "header claims" in error_of(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["embed.weight"].update(shape=[6, 5]),
        lambda header: header["embed.weight"].update(shape=[6, -4]),
        lambda header: header["embed.weight"].update(shape=[10**30, 10**30]),
        lambda header: header["embed.weight"].update(data_offsets=[96, 0]),
        lambda header: header["embed.weight"].update(data_offsets="0"),
        lambda header: header["embed.weight"].update(dtype=None),
        lambda header: header["norm.weight"].update(data_offsets=[0, 8]),
        lambda header: header.update(other=[1, 2]),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(folder: Path, change: object) -> None:
    rewrite_header(folder, change)
    assert "damaged" in error_of(folder)


@pytest.mark.parametrize("body", [b"[1]", b"{", b"\xff\xfe", b"[" * 5000])
def test_a_header_that_is_no_json_object_is_refused(folder: Path, body: bytes) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(len(body).to_bytes(8, "little") + body)
    assert "header" in error_of(folder)


def test_no_damage_to_a_header_escapes_as_another_error(folder: Path) -> None:
    path = folder / "model.safetensors"
    sound = path.read_bytes()
    rng = random.Random(7)
    for _ in range(300):
        data = bytearray(sound)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data) - 104)] = rng.randrange(256)
        path.write_bytes(bytes(data))
        try:
            checkpoint = Checkpoint.open(folder)
            for name in checkpoint.shapes:
                checkpoint.read(name)
        except ModelUnavailableError:
            continue


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "..", "C:x.safetensors"],
)
def test_an_index_that_points_outside_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    save_file(TENSORS, tmp_path / "model.safetensors")
    write_shards(folder, {"embed.weight": name})
    assert "outside" in error_of(folder)


def test_an_index_that_names_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model-00001.bin").write_bytes(b"x")
    write_shards(tmp_path, {"embed.weight": "pytorch_model-00001.bin"})
    assert "no safetensors" in error_of(tmp_path)


def test_a_shard_that_is_missing_or_lacks_its_tensor_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, {"embed.weight": "a.safetensors"})
    assert "a.safetensors" in error_of(tmp_path)
    save_file({"other": torch.ones(1)}, tmp_path / "a.safetensors")
    assert "embed.weight" in error_of(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"weight_map": []}', '{"weight_map": {}}'])
def test_a_useless_index_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    assert "index" in error_of(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_a_folder_of_pickles_is_refused_as_such(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    message = error_of(tmp_path)
    assert "pickle" in message
    assert name in message


def test_folders_without_readable_weights_are_refused(tmp_path: Path) -> None:
    assert "no folder" in error_of(tmp_path / "nowhere")
    assert "no weights" in error_of(tmp_path)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert "GGUF" in error_of(tmp_path)
