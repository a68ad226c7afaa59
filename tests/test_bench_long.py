"""The benchmarks of long contexts at tiny sizes: that both sides really run, and agree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_helpers import TINY
from checkpoints import GPT_NEOX, nazx, write_checkpoint
from cli_helpers import tiny_checkpoint
from typer.testing import CliRunner

from nazx_cli.bench import attention, decode, growth, results
from nazx_cli.bench.attention import DenseCache, exact
from nazx_cli.bench.models import (
    distinct_of,
    inattention_config,
    prose_ids,
    prose_like,
    random_decoder,
    zipf_ids,
)
from nazx_cli.bench.peers import llama_peer
from nazx_cli.bench.peers import transformers_peer as peers
from nazx_cli.bench.results import Row, Spread
from nazx_cli.bench.setup import Settings, Setup
from nazx_cli.bench.workloads import WORKLOADS
from nazx_cli.catalog.registry import Registry
from nazx_cli.cli.app import app
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.memory import probe
from nazx_cli.memory.estimate import distinct_cells, distinct_tokens
from nazx_cli.model.attention.inattention import InitialStateProjections


@pytest.fixture(autouse=True)
def tiny_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "find", lambda registry, name: TINY)


def run(name: str, **settings: Any) -> list[Row]:
    return list(WORKLOADS[name].run(Setup(Settings(**settings))))


# Attention


@pytest.mark.parametrize("window", (1, 3))
def test_attention_is_measured_beside_every_form_of_dense_attention(window: int) -> None:
    rows = run("attention", contexts=(700,), dtype="float32", repeat=3, initial_window=window)
    assert [row.measure.rpartition(", ")[2] for row in rows] == ["Zipf", "prose"]
    for row in rows:
        assert (row.tokens, row.dtype, row.layout) == (700, "float32", "pairs")
        assert row.kernel in ("compiled", "portable")
        assert row.details["relative_error"] < 1e-4
        assert row.details["dense_relative_error"] < 1e-4
        assert row.details["dense_cache_bytes"] == 2 * 700 * 48 * 4
        assert row.theirs is not None and row.theirs.low > 0
        forms = [name for name in row.details if name.endswith("_seconds")]
        assert len(forms) == 4
        fastest = min(row.details[name] for name in forms)
        assert row.theirs.median == fastest
        assert len(row.ours.runs) == 3


def test_attention_in_bfloat16_is_near_the_exact_result() -> None:
    rows = run("attention", contexts=(700,), dtype="bfloat16", repeat=1, layouts=("tables",))
    assert [row.dtype for row in rows] == ["bfloat16"] * 2 + ["float32"] * 2
    for row in rows:
        assert row.details["relative_error"] < (0.03 if row.dtype == "bfloat16" else 1e-4)


def test_a_wrong_result_makes_the_row_void(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any) -> torch.Tensor:
        return 1.5 * exact(*arguments)

    monkeypatch.setattr(attention, "exact", wrong)
    for row in run("attention", contexts=(300,), dtype="float32", repeat=1):
        assert row.theirs is None
        assert row.note.startswith("void: the result is off by 0.3")


def test_attention_is_left_out_where_the_dense_cache_has_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = probe.Reading("cpu", 0, 1000, 2000)
    monkeypatch.setattr(attention, "read_memory", lambda device: full)
    told: list[str] = []
    setup = Setup(Settings(contexts=(300,), dtype="float32"), told.append)
    assert list(attention.run(setup)) == []
    assert any("left out" in line for line in told)


def test_without_the_kernel_the_portable_layout_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NAZX_NATIVE", "0")
    rows = run("attention", contexts=(300,), dtype="float32", repeat=1)
    assert {row.kernel for row in rows} == {"portable"}


@pytest.mark.parametrize("count", (1, 2, 333))
def test_dense_attention_is_the_decoder_s_own(count: int) -> None:
    """Against the model's whole-sequence attention, which knows nothing of layouts."""
    config = replace(inattention_config("tiny"), num_layers=1)
    decoder = random_decoder(config, torch.float32)
    lm = LanguageModel("tiny", decoder, Path(), "ids")
    p = InitialStateProjections(decoder)
    ids = zipf_ids(config.vocab_size, count)
    last = decoder.embed(ids[-1:])
    query = decoder.layers[0].query(decoder.layers[0].norm1(last)).view(config.num_heads, -1)
    from nazx_cli.kernels.rotary import Rotation

    turn = Rotation(p.rotary.phases(count - 1, count, count, "cpu"), torch.float32)
    expected = lm.logits(ids)[-1]
    forms = DenseCache(p, ids).forms(turn(query[None])[0])
    for attended in (*(form() for form in forms.values()), exact(p, ids, query).float()):
        h = decoder.layers[0].residual(last, attended.reshape(1, -1))
        assert torch.allclose(decoder.logits(h)[0], expected, atol=1e-5)


# Ids


@pytest.mark.parametrize("count", (10_000, 100_000))
def test_prose_has_as_many_distinct_ids_as_english(count: int) -> None:
    found = len(prose_ids(50_304, count).unique())
    assert found == pytest.approx(distinct_tokens(count, 50_304), rel=0.05)


@pytest.mark.parametrize("window", (2, 3))
def test_prose_has_as_many_distinct_cells_as_english(window: int) -> None:
    config = inattention_config("tiny")
    config = replace(config, attention=replace(config.attention, initial_window=window))
    config = replace(config, vocab_size=50_304)
    for count in (0, 1, 5, 30_000):
        ids = prose_like(config, count)
        assert len(ids) == count
        assert int(distinct_of(ids, config)["distinct_cells"]) == pytest.approx(
            distinct_cells(count, config), rel=0.05
        )


def test_zipf_ids_fall_off_as_one_over_the_rank() -> None:
    counts = torch.bincount(zipf_ids(1000, 200_000))
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.1)


# One more token after a long context


def test_a_token_after_a_long_context_is_measured_beside_transformers() -> None:
    pytest.importorskip("transformers")
    rows = run("decode-long", contexts=(900,), dtype="float32", repeat=3)
    found = [
        (row.measure.rpartition(", ")[2], row.peer.rpartition(", ")[2].split()[0]) for row in rows
    ]
    assert sorted(found) == [
        (ids, cache) for ids in ("Zipf", "prose") for cache in ("dynamic", "static")
    ]
    for row in rows:
        assert row.theirs is not None
        assert len(row.ours.runs) == len(row.theirs.runs) == 3
        assert row.theirs.low > 0
        assert "filled at random" in row.note
        assert row.kernel


def test_both_caches_give_the_same_tokens() -> None:
    pytest.importorskip("transformers")
    peer = peers.TransformersPeer.random(inattention_config("tiny"), torch.float32)
    found = [peer.decode(peer.filled_cache(300, room), 1, 5) for room in (None, 5)]
    assert found[0] == found[1]


def test_the_filled_cache_is_as_long_as_the_context_and_grows() -> None:
    pytest.importorskip("transformers")
    peer = peers.TransformersPeer.random(inattention_config("tiny"), torch.float32)
    cache = peer.filled_cache(5000)
    assert cache.get_seq_length() == 5000
    assert peer.cache_bytes(cache) == 5000 * 2 * 3 * 48 * 4
    peer.decode(cache, 1, 2)
    assert cache.get_seq_length() == 5002


def test_a_cache_without_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    full = probe.Reading("cpu", 0, 1000, 2000)
    monkeypatch.setattr(decode, "read_memory", lambda device: full)
    for row in run("decode-long", contexts=(900,), dtype="float32", repeat=1):
        assert row.theirs is None
        assert "no room" in row.note


# Growth and its plots


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    pytest.importorskip("transformers")
    monkeypatch.setattr(llama_peer, "is_installed", lambda: False)
    return run("growth", contexts=(1000,), peer_lengths=(100, 200), dtype="float32", repeat=2)


def test_growth_measures_all_three_costs_of_both_sides(grown: list[Row]) -> None:
    measures = [growth.FIRST, growth.FURTHER, growth.MEMORY]
    assert [(row.tokens, row.measure) for row in grown] == [
        (count, measure) for count in (100, 200, 1000) for measure in measures
    ]
    for row in grown:
        assert row.ours.low > 0
        assert (row.theirs is None) == (row.tokens == 1000)
    dense = [row.theirs.median for row in grown if row.theirs and row.measure == growth.MEMORY]
    assert dense == [(count + 5) * 2 * 3 * 48 * 4 for count in (100, 200)]


def test_plots_show_every_measured_point(grown: list[Row], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = growth.lines_of(grown, growth.FIRST)
    assert [name.split()[0] for name in lines] == ["nazx", "transformers"]
    assert [count for count, _ in lines["nazx"]] == [100, 200, 1000]
    written = growth.write_plots(grown, tmp_path)
    assert [path.name for path in written] == ["growth.svg", "growth.png"]
    assert written[0].read_text().count("<svg") == 1
    assert written[1].read_bytes().startswith(b"\x89PNG")


def test_rows_of_other_workloads_are_not_plotted(tmp_path: Path) -> None:
    row = Row("decode", "time per token", 5, "s", "float32", Spread((0.5,)))
    assert growth.write_plots([row], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def bench(*arguments: str, code: int = 0) -> str:
    """stderr of ``nazx bench``."""
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code == code, result.stderr
    return result.stderr


def test_plots_are_written_beside_the_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    for module in (peers, llama_peer):
        monkeypatch.setattr(module, "is_installed", lambda: False)
    file = tmp_path / "bench.json"
    run = ("growth", "--quick", "--ctx", "300", "--repeat", "1", "--output", str(file))
    bench(*run)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["bench.json", "growth.png", "growth.svg"]
    bench(*run, "--plots", str(tmp_path / "new" / "folder"))
    assert (tmp_path / "new" / "folder" / "growth.svg").is_file()


def test_missing_plots_are_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (peers, llama_peer):
        monkeypatch.setattr(module, "is_installed", lambda: False)
    monkeypatch.setattr(growth, "can_plot", lambda: False)
    arguments = ("growth", "--quick", "--ctx", "300", "--repeat", "1")
    err = bench(*arguments, "--plots", str(tmp_path))
    assert "matplotlib is not installed" in err
    assert "transformers is not installed" in err
    assert list(tmp_path.iterdir()) == []
    assert "nothing is plotted" in bench(*arguments)
    (tmp_path / "file").touch()
    assert "is no folder" in bench(*arguments, "--plots", str(tmp_path / "file"), code=2)


def test_random_models_take_the_shapes_that_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    bench("attention", "--shapes", "tiny", "--ctx", "300", "--repeat", "1", "--output", str(file))
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert {row["measure"] for row in rows} == {"one layer, tiny, Zipf", "one layer, tiny, prose"}


# llama.cpp


def test_llama_cpp_runs_the_random_model_and_computes_the_same(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("transformers")
    from nazx_cli.bench.peers.llama_peer import precision_of, write_random
    from nazx_cli.checkpoint.gguf import GgufFile

    config = inattention_config("tiny")
    file = tmp_path / "random.gguf"
    write_random(config, file)
    assert precision_of(file) == "F16"
    rival = llama_peer.rival(file, "F16", 600)
    assert rival.engine is not None, rival.note
    types = {"F16": torch.float16, "F32": torch.float32}
    tensors = {
        each.name: torch.frombuffer(bytearray(each.load()), dtype=types[each.dtype])
        .view(each.shape)
        .float()
        for each in GgufFile.open(file).tensors()
    }
    peer = peers.TransformersPeer(config, tensors, torch.float32)
    ids = zipf_ids(config.vocab_size, 600)  # more than one batch
    cache, logits = rival.engine.prefill(ids)
    theirs_cache, expected = peer.prefill(ids)
    assert (logits - expected).norm() / expected.norm() < 0.02
    memory = rival.engine.cache_bytes(cache)
    assert memory == pytest.approx(600 * 2 * 3 * 48 * 2, rel=0.2)
    token = int(expected.argmax())
    rival.engine.decode(cache, token, 1)
    peer.decode(theirs_cache, token, 1)
    again = rival.engine.prefill(ids)[1]
    assert torch.allclose(again, logits, atol=1e-4)


def test_a_file_that_llama_cpp_cannot_run_is_told(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    rival = llama_peer.rival(file, "F16", 100)
    assert rival.engine is None
    assert "llama.cpp cannot run broken.gguf here" in rival.note


def test_the_real_model_meets_a_gguf_file_and_the_row_says_how_weights_differ(
    tmp_path: Path,
) -> None:
    pytest.importorskip("llama_cpp")
    from nazx_cli.bench.peers.llama_peer import write_random

    folder = write_checkpoint(tmp_path / "tiny", nazx(GPT_NEOX, {"kind": "full"}))
    file = tmp_path / "random.gguf"
    write_random(inattention_config("tiny"), file)
    settings = Settings(
        model=str(folder),
        gguf=str(file),
        dtype="float32",
        quantize=("int8",),
        prompts=(40,),
        new_tokens=2,
        repeat=1,
    )
    rows = [row for row in run_with(settings) if row.peer.startswith("llama")]
    assert [row.note for row in rows] == ["theirs is F16, ours float32", "theirs is F16, ours int8"]
    assert all(row.theirs is not None and row.theirs.low > 0 for row in rows)
    other = tiny_checkpoint(tmp_path / "other", window=96)  # of another vocabulary
    rows = run_with(replace(settings, model=str(other)))
    notes = {row.note for row in rows if row.peer.startswith("llama")}
    assert notes == {"random.gguf is of a model with other tokens"}


def run_with(settings: Settings) -> list[Row]:
    return list(WORKLOADS["decode"].run(Setup(settings)))


# Timing


def test_threads_are_set_back() -> None:
    before = torch.get_num_threads()
    with results.on_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
