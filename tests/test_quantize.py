"""Quantized weights: held to the dequantized reference, kept on disk, made in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from checkpoints import nazx, random_tensors, write_checkpoint
from models import BASES, FULL, INATTENTION, WINDOWED, checkpoint, random_ids, relative_error
from reference import Reference
from torch import Tensor
from typer.testing import CliRunner

from nazx_cli.bench import quantization
from nazx_cli.bench.setup import Settings, Setup
from nazx_cli.cli.app import app
from nazx_cli.config import ModelConfig
from nazx_cli.context.layouts import LAYOUTS
from nazx_cli.engine.language_model import LanguageModel, load_model
from nazx_cli.errors import ModelUnavailableError, UsageError
from nazx_cli.model.layers import QuantizedLinear, dense_weight
from nazx_cli.weights.families import parts
from nazx_cli.weights.int8_linear import Int8Linear
from nazx_cli.weights.nf4_linear import Nf4Linear, TiledNf4Linear
from nazx_cli.weights.nibbles import tile, untile
from nazx_cli.weights.quantize import quantize_linear, self_test
from nazx_cli.weights.quantize_cost import KINDS, linear_bytes
from nazx_cli.weights.quantized_checkpoint import quantize_checkpoint
from nazx_cli.weights.quantized_format import is_quantized

KIND_IDS = ("inattention", "windowed", "full")
WIDE = {"hidden_size": 64, "intermediate_size": 128}  # sizes that the fused kernels take
EXACT = 1e-5  # float32 against float64, relative
ROUNDED = 0.03  # bfloat16 against float64: what the unquantized engine has too


@cache
def quantized(
    base: str, attention: str, kind: str, dtype: str, wide: bool = False
) -> LanguageModel:
    if not wide:
        return load_model(checkpoint(base, attention)[0], dtype=dtype, quantize=kind)
    kinds = {"inattention": INATTENTION, "windowed": WINDOWED, "full": FULL}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = nazx(BASES[base], kinds[attention], **WIDE, **heads)
    folder = Path(mkdtemp(prefix="nazx-test-")) / "wide"
    return load_model(write_checkpoint(folder, config), dtype=dtype, quantize=kind)


def wanted(lm: LanguageModel, ids: list[int]) -> Tensor:
    """(T, V) float64 logits of the matrices that the quantized layers stand for."""
    key = (str(lm.folder), lm.quantization, lm.dtype, tuple(ids))
    if key not in _WANTED:
        _WANTED[key] = dequantized(lm).logits(ids)
    return _WANTED[key]


_WANTED: dict[tuple[object, ...], Tensor] = {}


def dequantized(lm: LanguageModel) -> Reference:
    """The float64 decoder on the matrices that the quantized layers stand for."""
    config = json.loads((lm.folder / "config.json").read_text())
    tensors = random_tensors(config)
    for part in parts(lm.config):
        if is_quantized(part):
            layer = lm.decoder.get_submodule(part.parameter.removesuffix(".weight"))
            dense = dense_weight(layer).float()
            tensors.update(taken_apart(lm.config, part.parameter, dense, part.sources))
        elif lm.dtype == "bfloat16":
            tensors |= {name: tensors[name].bfloat16() for name, _ in part.sources}
    return Reference(config, tensors)


def taken_apart(
    config: ModelConfig, parameter: str, dense: Tensor, sources: tuple[tuple[str, Any], ...]
) -> dict[str, Tensor]:
    """A stacked matrix as the checkpoint's own tensors."""
    if parameter.endswith("qkv.weight") and config.family == "gpt_neox":
        by_kind = dense.view(3, config.num_heads, config.head_dim, -1)
        return {sources[0][0]: by_kind.transpose(0, 1).reshape(dense.shape)}
    pieces = dense.split([shape[0] for _, shape in sources])
    return {name: piece for (name, _), piece in zip(sources, pieces, strict=True)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", KIND_IDS)
@pytest.mark.parametrize("base", BASES)
def test_float32_logits_are_those_of_the_dequantized_weights(
    base: str, attention: str, kind: str
) -> None:
    lm = quantized(base, attention, kind, "float32")
    ids = random_ids(20, seed=20)
    want = wanted(lm, ids)
    assert relative_error(lm.logits(ids), want) < EXACT
    context = lm.new_context()
    context.append(ids[:-3])
    lm.next_logits(context)
    context.append(ids[-3:])
    assert relative_error(lm.next_logits(context), want[-1]) < EXACT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", ("neox-sequential", "llama"))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_derives_its_tables_from_the_dequantized_weights(
    layout: str, base: str, kind: str
) -> None:
    lm = quantized(base, "inattention", kind, "float32")
    lm = LanguageModel(lm.name, lm.decoder, lm.folder, layout)
    context, ids = lm.new_context(), random_ids(36, seed=21, vocab=14)
    context.append(ids[:20], resident=True)
    lm.next_logits(context)
    context.append(ids[20:])
    context.delete(5, 12)
    del ids[5:12]
    assert relative_error(lm.next_logits(context), wanted(lm, ids)[-1]) < EXACT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", KIND_IDS)
@pytest.mark.parametrize("base", ("neox-sequential", "llama"))
def test_bfloat16_and_its_fused_products_stay_near_the_dequantized_weights(
    base: str, attention: str, kind: str
) -> None:
    lm = quantized(base, attention, kind, "bfloat16", wide=True)
    ids = random_ids(16, seed=22)
    want = wanted(lm, ids)
    assert relative_error(lm.logits(ids), want) < ROUNDED
    for layout in lm.layouts:
        same = LanguageModel(lm.name, lm.decoder, lm.folder, layout)
        context = same.new_context()
        context.append(ids)
        assert relative_error(same.next_logits(context), want[-1]) < 2 * ROUNDED


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ((1, 1), (7, 5), (33, 48), (96, 128), (1100, 1024)), ids=str)
def test_products_of_any_rows_equal_those_with_the_dense_matrix(
    shape: tuple[int, int], kind: str, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(23)
    weight = torch.rand(shape, generator=generator) - 0.3
    layer = quantize_linear(weight, None, kind, dtype, "cpu")
    dense, rows = layer.dense(), shape[0]
    assert dense.dtype == dtype
    assert relative_error(dense, weight) < (0.02 if kind == "int8" else 0.12)
    for start, stop in ((0, rows), (rows // 3, rows), (rows // 3, rows // 3 + 1), (32, 64)):
        if stop > rows:
            continue
        assert torch.equal(layer.dense(start, stop), dense[start:stop])
        for count in (1, 3, 20):
            x = (torch.rand(count, shape[1], generator=generator) - 0.3).to(dtype)
            want = x.double() @ dense[start:stop].double().t()
            got = layer.product(x, start, stop)
            assert got.dtype == dtype
            scale = (x.double().abs() @ dense[start:stop].double().abs().t()).max()
            limit = 1e-6 if dtype == torch.float32 else 0.01
            assert (got.double() - want).abs().max() < limit * scale


@pytest.mark.parametrize("kind", KINDS)
def test_products_by_the_library_as_on_cuda_agree_with_the_dense_matrix(kind: str) -> None:
    generator = torch.Generator().manual_seed(24)
    weight = torch.randn(96, 128, generator=generator)
    layer = quantize_linear(weight, None, kind, torch.float32, "cpu")
    assert isinstance(layer, Int8Linear | Nf4Linear)
    for count in (1, 5):
        x = torch.randn(count, 128, generator=generator)
        x[0, 3] = 40  # an outlier, which LLM.int8() keeps apart
        got = layer._by_library(x, 16, 80)
        assert got is not None
        # Activations are rounded to 8 bits in int8, not at all in nf4.
        limit = 0.02 if kind == "int8" else 1e-5
        assert relative_error(got, x @ layer.dense(16, 80).t()) < limit


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape", ((1, 1), (3, 7), (5, 31), (33, 48), (64, 64), (300, 4100)), ids=str
)
def test_bytes_of_a_layer_are_those_of_the_formula(shape: tuple[int, int], kind: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        layer = quantize_linear(torch.ones(shape), None, kind, dtype, "cpu")
        held = sum(buffer.untyped_storage().nbytes() for buffer in layer.buffers())
        # The CPU's kernel takes scales of 16 bits, and no others are kept beside them.
        spared = 2 * layer.absmax.numel() if isinstance(layer, TiledNf4Linear) else 0
        assert held == linear_bytes(*shape, kind) - spared


def test_tiling_moves_every_weight_and_brings_it_back() -> None:
    generator = torch.Generator().manual_seed(25)
    standard = torch.randint(256, (96, 40), generator=generator).to(torch.uint8)
    tiled = tile(standard)
    assert not torch.equal(tiled, standard)
    assert torch.equal(untile(tiled), standard)
    # Row 16 + r of a group lies in the high half, two bytes for each pair of columns.
    assert tiled[32].view(-1)[2 * 5] & 15 == standard[32 + 5, 0] >> 4
    assert tiled[32].view(-1)[2 * 5 + 1] >> 4 == standard[32 + 16 + 5, 0] & 15


def test_rows_of_zeros_stay_zeros() -> None:
    weight = torch.zeros(64, 64)
    weight[5] = 1
    for kind in KINDS:
        assert torch.equal(
            quantize_linear(weight, None, kind, torch.float32, "cpu").dense(), weight
        )


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


def test_blocks_are_quantized_and_embeddings_head_and_norms_keep_the_compute_type() -> None:
    for dtype in ("float32", "bfloat16"):
        for base in ("neox-sequential", "llama"):
            decoder = quantized(base, "windowed", "nf4", dtype).decoder
            names = [n for n, m in decoder.named_modules() if isinstance(m, QuantizedLinear)]
            assert len(names) == 3 * (5 if base == "llama" else 4)
            assert all(name.startswith("blocks.") for name in names)
            assert {str(p.dtype) for p in decoder.parameters()} == {f"torch.{dtype}"}
            assert str(decoder.head.weight.dtype) == f"torch.{dtype}"


def test_the_fused_form_of_nf4_is_used_where_the_processor_has_it() -> None:
    lm = quantized("llama", "full", "nf4", "bfloat16", wide=True)
    library = lm.decoder.layers[0].qkv.library
    fused = library.functional.has_avx512bf16()
    assert isinstance(lm.decoder.layers[0].qkv, TiledNf4Linear) == fused


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
    with pytest.raises(ModelUnavailableError, match=r"has the shape \(1920, 1\), \(2304, 1\)"):
        load_model(made)


def test_an_unknown_kind_names_the_two_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"unknown quantization 'int4'.*int8 or nf4"):
        load_model(checkpoint("llama", "full")[0], quantize="int4")


def test_the_self_test_runs_both_kinds() -> None:
    assert self_test() == {"int8": "works", "nf4": "works"}


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
        assert done.stderr == (
            "error: quantized weights need bitsandbytes, which is not installed; "
            "next: pip install bitsandbytes\n"
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
from nazx_cli.weights.load import load_decoder
from nazx_cli.weights.quantize import self_test

def held():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024

self_test()
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
