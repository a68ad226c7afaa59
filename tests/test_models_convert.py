"""``nazx convert``: folders, Hub models and GGUF files, and what an interrupted run leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from checkpoints import GPT_NEOX, LLAMA, nazx, random_tensors, write_checkpoint
from gguf import GGMLQuantizationType as Kind
from gguf_blocks import FORMATS, dequantized, random_blocks
from tiny_gguf import (
    HEADS,
    NEOX_NAMES,
    VOCAB,
    by_kind,
    gpt_neox,
    llama,
    permuted,
    write_gguf,
    write_neox_gguf,
)
from typer.testing import CliRunner

from nazx_cli import load_model
from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.checkpoint.convert import convert_gguf
from nazx_cli.checkpoint.gguf import GgufFile
from nazx_cli.cli.app import app
from nazx_cli.config import AttentionConfig, ModelConfig, as_trained

ROOT = Path(__file__).parents[1]
FULL = AttentionConfig("full")


def convert(*arguments: str | Path) -> tuple[str, str, int]:
    """Run in this process; stdout, stderr, exit code."""
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.stdout, result.stderr, result.exit_code


def start(*arguments: str | Path, code: str = "") -> subprocess.Popen[str]:
    """Run as a process of its own; ``code`` runs before it."""
    program = f"{code}\nfrom nazx_cli.cli.app import main\nmain()"
    return subprocess.Popen(
        [sys.executable, "-c", program, "convert", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def attention_of(folder: Path) -> AttentionConfig:
    return ModelConfig.from_folder(folder).attention


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source", LLAMA)


# Folders


@pytest.mark.parametrize("base", [GPT_NEOX, LLAMA])
def test_a_base_model_becomes_windowed_with_its_weights_untouched(
    tmp_path: Path, base: dict[str, Any]
) -> None:
    source, dest = write_checkpoint(tmp_path / "source", base), tmp_path / "dest"
    out, _, code = convert(source, dest, "--json")
    assert code == 0
    trained = base["max_position_embeddings"]
    assert json.loads(out)["attention"]["local_window"] == trained - 4
    assert attention_of(dest) == AttentionConfig("windowed", trained - 4, 4)
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        assert (dest / name).read_bytes() == (source / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dest", "source"]


def test_the_attention_can_be_chosen(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "a", "--attention", "inattention")
    assert attention_of(tmp_path / "a") == AttentionConfig("inattention")
    convert(source, tmp_path / "b", "--window", "100", "--sinks", "0")
    assert attention_of(tmp_path / "b") == AttentionConfig("windowed", 100, 0)
    for option in (["--sinks", "9"], ["--attention", "windowed", "--sinks", "9"]):
        convert(source, tmp_path / "e", *option, "--force")
        assert attention_of(tmp_path / "e") == as_trained(LLAMA["max_position_embeddings"], 9)
    convert(tmp_path / "a", tmp_path / "c", "--attention", "full")
    assert attention_of(tmp_path / "c") == FULL
    convert(tmp_path / "b", tmp_path / "d")
    assert attention_of(tmp_path / "d") == AttentionConfig("windowed", 100, 0)


def test_window_and_sinks_belong_to_windowed_attention(source: Path, tmp_path: Path) -> None:
    out, err, code = convert(source, tmp_path / "a", "--attention", "full", "--window", "9")
    assert (out, code) == ("", 2)
    assert "--window" in err
    assert not (tmp_path / "a").exists()


def test_the_copy_does_not_change_with_its_source(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "dest")
    before = (tmp_path / "dest" / "model.safetensors").read_bytes()
    with (source / "model.safetensors").open("r+b") as file:
        file.write(b"changed")
    assert (tmp_path / "dest" / "model.safetensors").read_bytes() == before


def test_a_folder_that_is_there_is_kept_without_force(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    convert(source, dest, "--attention", "full")
    out, err, code = convert(source, dest)
    assert (out, code) == ("", 2)
    assert "--force" in err
    assert attention_of(dest) == FULL
    out, err, code = convert(source, dest, "--force")
    assert code == 0 and err.startswith(f"converting {source}\n")
    assert attention_of(dest).kind == "windowed"
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("years of work")
    assert convert(source, tmp_path / "papers", "--force")[2] == 2
    assert (tmp_path / "papers" / "thesis.txt").is_file()


def test_a_folder_cannot_be_converted_into_itself(source: Path) -> None:
    assert convert(source, source, "--force")[2] == 2
    assert convert(source, source / "inner")[2] == 2
    assert attention_of(source) == FULL


def test_an_incomplete_source_is_refused(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    del tensors["model.layers.2.mlp.up_proj.weight"]
    source = write_checkpoint(tmp_path / "source", LLAMA, tensors)
    out, err, code = convert(source, tmp_path / "dest")
    assert (out, code) == ("", 5)
    assert "model.layers.2.mlp.up_proj.weight" in err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# Interruptions


def test_ctrl_c_leaves_nothing(source: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal\nfrom nazx_cli.checkpoint import convert\n"
        "def stop(*_):\n os.kill(os.getpid(), signal.SIGINT)\n yield 0\n"
        "convert._transfer = stop"
    )
    process = start(source, tmp_path / "dest", code=code)
    out, err = process.communicate(timeout=20)
    assert (out, err, process.returncode) == ("", f"converting {source}\n", 130)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_a_killed_conversion_leaves_no_model_and_the_next_one_clears_up(
    source: Path, tmp_path: Path
) -> None:
    code = (
        "import time\nfrom nazx_cli.checkpoint import convert\n"
        "def stop(old, new, may_link):\n new.write_bytes(b'half')\n time.sleep(60)\n yield 0\n"
        "convert._transfer = stop"
    )
    process = start(source, tmp_path / "dest", code=code)
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob(".dest.*.partial/new/model.safetensors")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "dest").exists()
    assert convert(source, tmp_path / "dest")[2] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dest", "source"]


@pytest.mark.skipif(os.name == "nt", reason="needs limits of file sizes")
def test_a_full_disk_is_named_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    limit = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    )
    process = start(source, tmp_path / "dest", code=limit)
    out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == ("", 5)
    assert err.splitlines()[-1].startswith("error: the disk is full")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# GGUF


@pytest.mark.parametrize("kind", [*FORMATS, Kind.F32, Kind.F16, Kind.BF16], ids=lambda k: k.name)
def test_every_common_type_is_read_exactly(tmp_path: Path, kind: Kind) -> None:
    """Against a reference that knows nothing of the gguf package, in order and permuted."""
    rows, columns = 8, 256
    random = np.random.default_rng(1)
    values = random.normal(size=(2 * rows, columns)).astype(np.float32)
    if kind in (Kind.Q4_K, Kind.Q6_K):
        raw = random_blocks(kind, 2 * rows, columns)
    else:
        raw = gguf.quants.quantize(values, kind)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_head_count(2)
    writer.add_tensor("token_embd.weight", raw[:rows], raw_dtype=kind)
    writer.add_tensor("blk.0.attn_q.weight", raw[rows:], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if kind in FORMATS:
        wanted = dequantized(raw.tobytes(), kind, values.shape)
        dtype, read = "F32", np.float32
    else:
        torch_dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
        tensor = torch.from_numpy(values).to(torch_dtype[kind.name])
        wanted = tensor.view(torch.uint8).numpy()
        dtype, read = kind.name, np.uint8
    embedding, query = GgufFile.open(tmp_path / "m.gguf").tensors()
    for pending, expected, heads in ((embedding, wanted[:rows], 0), (query, wanted[rows:], 2)):
        assert (pending.dtype, pending.shape) == (dtype, (rows, columns))
        found = np.frombuffer(pending.load(), read).reshape(expected.shape)
        assert np.array_equal(permuted(found, heads) if heads else found, expected)


def test_quantized_tensors_become_bfloat16_where_that_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(file, llama(tied=True), dict.fromkeys(("token_embd", "ffn_up", "attn_q"), Kind.Q8_0))
    for dtype in ("float32", "bfloat16"):
        assert convert(file, tmp_path / dtype, "--dtype", dtype)[2] == 0
    exact, rounded = (Checkpoint.open(tmp_path / dtype) for dtype in ("float32", "bfloat16"))
    assert exact.shapes == rounded.shapes
    for name in exact.shapes:
        whole, was_quantized = (
            exact.read(name),
            any(stem in name for stem in ("embed_tokens", "up_proj", "q_proj")),
        )
        kept = torch.bfloat16 if was_quantized else torch.float32
        assert torch.equal(rounded.read(name), whole.to(kept)), name
        assert rounded.read(name).dtype == kept
    config = json.loads((tmp_path / "bfloat16" / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16"
    found = load_model(tmp_path / "bfloat16", dtype="float32").logits([1, 2, 3])
    assert torch.isfinite(found).all()


def test_dtype_is_refused_where_it_would_change_nothing(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "folder", LLAMA)
    file = tmp_path / "m.gguf"
    write_gguf(file, llama(tied=True), {"ffn_up": Kind.Q8_0})
    bfloat16 = ("--dtype", "bfloat16")
    for arguments, told in (
        ((tmp_path / "folder", tmp_path / "made", *bfloat16), "is no GGUF file"),
        ((file, tmp_path / "made", *bfloat16, "--quantize", "int8"), "--dtype and --quantize"),
    ):
        _, err, code = convert(*arguments)
        assert (code, told in err) == (2, True), err
        assert not (tmp_path / "made").exists()


def test_a_gpt_neox_gguf_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = gpt_neox()
    write_neox_gguf(tmp_path / "m.gguf", model, {})
    out, _, code = convert(tmp_path / "m.gguf", tmp_path / "dest", "--attention", "full", "--json")
    assert code == 0
    assert json.loads(out)["attention"] == {"kind": "full"}
    checkpoint = Checkpoint.open(tmp_path / "dest")
    state = {
        name.replace("lm_head", "embed_out"): tensor for name, tensor in model.state_dict().items()
    }
    assert set(checkpoint.shapes) == set(state)
    for name in checkpoint.shapes:
        assert torch.equal(checkpoint.read(name), state[name]), name


def test_a_gpt_neox_gguf_gives_the_logits_of_transformers(tmp_path: Path) -> None:
    model = gpt_neox()
    write_neox_gguf(tmp_path / "m.gguf", model, {})
    convert_gguf(tmp_path / "m.gguf", tmp_path / "dest", FULL)
    ids = [number % VOCAB for number in range(0, 60, 3)]
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0]
    found = load_model(tmp_path / "dest", dtype="float32").logits(ids)
    assert torch.allclose(found, wanted, atol=1e-4)


def test_a_quantized_gpt_neox_gguf_is_put_in_order_by_whole_rows(tmp_path: Path) -> None:
    model = gpt_neox()
    write_neox_gguf(tmp_path / "m.gguf", model, dict.fromkeys(NEOX_NAMES.values(), Kind.Q8_0))
    convert_gguf(tmp_path / "m.gguf", tmp_path / "dest", FULL)
    name = "gpt_neox.layers.1.attention.query_key_value.weight"
    stored = by_kind(model.state_dict()[name].numpy())
    raw = gguf.quants.quantize(stored, Kind.Q8_0).tobytes()
    found = Checkpoint.open(tmp_path / "dest").read(name).numpy()
    assert np.array_equal(by_kind(found), dequantized(raw, Kind.Q8_0, stored.shape))
    assert len(stored) % (3 * HEADS) == 0


def test_a_gguf_file_is_told_by_what_it_holds(tmp_path: Path) -> None:
    write_gguf(tmp_path / "blob", llama(tied=True), {"ffn_up": Kind.Q5_0})
    assert convert(tmp_path / "blob", tmp_path / "dest")[2] == 0
    trained = ModelConfig.from_folder(tmp_path / "dest").max_positions
    assert attention_of(tmp_path / "dest") == as_trained(trained)
    (tmp_path / "text.gguf").write_text("not a model")
    out, err, code = convert(tmp_path / "text.gguf", tmp_path / "other")
    assert (out, code) == ("", 5)
    assert "no GGUF file" in err
    assert convert(tmp_path / "nowhere.gguf", tmp_path / "other")[2] == 2
    assert not (tmp_path / "other").exists()


def test_a_gguf_that_lacks_a_tensor_leaves_nothing(tmp_path: Path) -> None:
    model = llama(tied=True)
    del model.model.layers[1].mlp.up_proj
    write_gguf(tmp_path / "m.gguf", model, {})
    out, err, code = convert(tmp_path / "m.gguf", tmp_path / "dest")
    assert (out, code) == ("", 5)
    assert "lacks the tensor" in err
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_a_conversion_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    """A model of 80 MB is written with less than a third of it in memory."""
    shape = {**LLAMA, "hidden_size": 480, "intermediate_size": 1920, "num_hidden_layers": 7}
    config = nazx(shape, {"kind": "full"})
    source = write_checkpoint(tmp_path / "source", config)
    code = (
        "import sys, os\nfrom nazx_cli.memory.probe import peak_resident_bytes, resident_bytes\n"
        "from pathlib import Path\nfrom nazx_cli.checkpoint import convert\n"
        "before = resident_bytes()\n"
        "convert.convert_model(Path(sys.argv[1]), Path(sys.argv[2]), None, on_progress=print)\n"
        "print(peak_resident_bytes() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, source, tmp_path / "dest"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    grown = int(done.stdout.splitlines()[-1])
    assert grown < Checkpoint.open(source).nbytes / 3, done.stderr
