"""Quantized checkpoints: made and refused, run by the command line, loaded in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import nazx, write_checkpoint
from gguf import GGMLQuantizationType as Kind
from models import BASES, FULL, checkpoint, random_ids
from quantized_models import quantized
from tiny_gguf import VOCAB, llama, write_gguf
from typer.testing import CliRunner

from nazx_cli.bench import quantization
from nazx_cli.bench.setup import Settings, Setup
from nazx_cli.checkpoint.convert import convert_model
from nazx_cli.checkpoint.quantized import quantize_checkpoint
from nazx_cli.cli.app import app
from nazx_cli.config import AttentionConfig
from nazx_cli.engine.language_model import load_model
from nazx_cli.errors import ModelUnavailableError, UsageError
from nazx_cli.quantization.cost import KINDS

FULL_ATTENTION = AttentionConfig("full")


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", BASES)
def test_a_quantized_checkpoint_gives_the_logits_of_quantizing_while_loading(
    base: str, kind: str, dtype: str, tmp_path: Path
) -> None:
    source = checkpoint(base, "inattention")[0]
    made = quantize_checkpoint(source, tmp_path / "made", kind, dtype)
    ids = random_ids(30, seed=26)
    kept = load_model(made, dtype=dtype)
    assert kept.quantization == kind
    assert torch.equal(kept.logits(ids), quantized(base, "inattention", kind, dtype).logits(ids))
    assert torch.equal(load_model(made, dtype=dtype, quantize=kind).logits(ids), kept.logits(ids))
    other = next(name for name in KINDS if name != kind)
    with pytest.raises(UsageError, match=f"are {kind} already"):
        load_model(made, quantize=other)
    with pytest.raises(UsageError, match=f"are {kind} already"):
        quantize_checkpoint(made, tmp_path / "again", other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"]


@pytest.mark.parametrize("kind", KINDS)
def test_converting_quantizes_a_gguf_or_a_folder_as_two_steps_do(kind: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", llama(tied=False), {"ffn_up": Kind.Q8_0, "attn_q": Kind.Q4_1})
    convert_model(tmp_path / "m.gguf", tmp_path / "whole", FULL_ATTENTION)
    steps = quantize_checkpoint(tmp_path / "whole", tmp_path / "steps", kind)
    ids = random_ids(20, seed=27, vocab=VOCAB)
    want = load_model(steps, dtype="bfloat16").logits(ids)
    for source in ("m.gguf", "whole"):
        made = convert_model(
            tmp_path / source, tmp_path / f"made-{source}", FULL_ATTENTION, quantize=kind
        )
        lm = load_model(made, dtype="bfloat16")
        assert lm.quantization == kind
        assert torch.equal(lm.logits(ids), want)


def test_a_damaged_quantized_checkpoint_is_refused_with_the_tensor_that_is_wrong(
    tmp_path: Path,
) -> None:
    made = quantize_checkpoint(checkpoint("llama", "full")[0], tmp_path / "made", "nf4")
    config = json.loads((made / "config.json").read_text())
    assert config["quantization"] == {
        "method": "bitsandbytes", "kind": "nf4", "compute_dtype": "bfloat16", "block_size": 64,
    }  # fmt: skip
    for change, words in (
        ({"kind": "int8"}, "lacks the tensor model.layers.0.self_attn.qkv_proj.weight.SCB"),
        ({"kind": "int3"}, "a way NazX does not know"),
        ({"method": "other"}, "a way NazX does not know"),
        ({"block_size": 128}, "a way NazX does not know"),
    ):
        broken = {**config, "quantization": {**config["quantization"], **change}}
        (made / "config.json").write_text(json.dumps(broken))
        with pytest.raises(ModelUnavailableError, match=words):
            load_model(made)
    (made / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    with pytest.raises(ModelUnavailableError, match=r"has the shape \(3840, 1\), \(4608, 1\)"):
        load_model(made)


BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "bitsandbytes":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
"""


def test_without_bitsandbytes_one_line_says_what_to_install(tmp_path: Path) -> None:
    source = checkpoint("llama", "full")[0]
    for arguments in (
        ["ask", "-m", str(source), "--quantize", "nf4", "hello"],
        ["quantize", str(source), str(tmp_path / "made"), "--kind", "int8"],
    ):
        code = f"{BLOCKED}\nfrom nazx_cli.cli.app import main\nsys.argv[1:] = {arguments!r}\nmain()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 2
        *said, error = done.stderr.splitlines()
        doing = [f"quantizing {source}"] if arguments[0] == "quantize" else []
        assert said == ["starting: loading PyTorch", *doing]
        assert error == (
            "error: quantized weights need bitsandbytes, which is not installed; "
            "next: pip install bitsandbytes"
        )
    assert list(tmp_path.iterdir()) == []


def test_quantize_makes_a_folder_that_ask_runs(tmp_path: Path) -> None:
    source, made = checkpoint("llama", "inattention")[0], tmp_path / "small"
    run = CliRunner()
    done = run.invoke(app, ["quantize", str(source), str(made), "--kind", "int8", "--json"])
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["kind"] == "int8" and facts["dtype"] == "bfloat16"
    assert facts["bytes"] == sum(path.stat().st_size for path in made.iterdir())
    ask = ["ask", "-m", str(made), "--max-tokens", "3", "--quiet", "hello"]
    assert run.invoke(app, ask).exit_code == 0
    again = run.invoke(app, ["quantize", str(source), str(made), "--kind", "nf4"])
    assert again.exit_code == 2 and "is there already" in again.stderr
    forced = run.invoke(app, ["quantize", str(source), str(made), "--kind", "nf4", "--force"])
    assert forced.exit_code == 0
    assert load_model(made).quantization == "nf4"
    for arguments, variables in ((["--quantize", "int8"], {}), ([], {"NAZX_QUANTIZE": "int8"})):
        wrong = run.invoke(app, [*ask, *arguments], env=variables)
        assert wrong.exit_code == 2 and "are nf4 already" in wrong.stderr


def test_the_benchmark_tells_quality_and_size_beside_the_original(
    tmp_path: Path, alice: str
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(alice[:1000])
    folder = str(checkpoint("llama", "full")[0])
    settings = Settings(folder, "float32", repeat=1, files=(str(text),), new_tokens=2)
    rows = {(row.measure, row.dtype): row for row in quantization.run(Setup(settings))}
    ids = load_model(folder).tokenizer.encode(alice[:1000])
    assert len(ids) < quantization.PIECE
    for kind in KINDS:
        lm = quantized("llama", "full", kind, "float32")
        assert rows["weights", kind].ours.median == quantization.weight_bytes(lm)
        for model, side in ((lm, "ours"), (load_model(folder), "theirs")):
            logits = model.logits(ids)[:-1].double()
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]))
            told = getattr(rows["perplexity", kind], side).median
            assert told == pytest.approx(float(loss.exp()), rel=1e-4)
        far = (lm.logits(ids) - load_model(folder).logits(ids)).abs()
        assert rows["mean logit error", kind].ours.median == pytest.approx(float(far.mean()))
        assert rows["largest logit error", kind].ours.median == pytest.approx(float(far.max()))


GROWTH = """
import sys, threading, time
import torch
from nazx_cli.checkpoint.load import load_decoder
from nazx_cli.quantization.quantize import quantize_linear

def held():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024

quantize_linear(torch.randn(64, 128), None, sys.argv[2], torch.float32, "cpu")  # load libraries
before, peak, done = held(), 0, False

def watch():
    global peak
    while not done:
        peak = max(peak, held())
        time.sleep(0.001)

watcher = threading.Thread(target=watch)
watcher.start()
decoder = load_decoder(__import__("pathlib").Path(sys.argv[1]), "cpu", "bfloat16", sys.argv[2])
done = True
watcher.join()
kept = sum(t.nbytes for t in {*decoder.parameters(), *decoder.buffers()})
print(peak - before, kept)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_loading_holds_no_more_than_the_quantized_model_and_one_float_matrix(
    tmp_path: Path,
) -> None:
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 4}
    config = nazx(BASES["neox-sequential"], FULL, **sizes)  # 201 MB in float32
    folder = write_checkpoint(tmp_path / "large", config)
    for kind in KINDS:
        done = subprocess.run(
            [sys.executable, "-c", GROWTH, str(folder), kind],
            capture_output=True,
            text=True,
            # Freed memory goes back at once, so that what is held is what is used.
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "0"},
        )

        assert done.returncode == 0, done.stderr
        grown, kept = map(int, done.stdout.split())
        # The rows of a GPT-NeoX qkv, 3 c^2 of them, are there twice while they are put in order.
        # The rest is the allocator's and the libraries' own, different on each machine; with the
        # whole model in bfloat16 beside the quantized one it would be 100 MB above what is kept.
        workspace = 2 * (4 * 3 * 1024 * 1024) + 40_000_000
        assert grown < kept + workspace
