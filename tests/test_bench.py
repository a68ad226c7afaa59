"""The benchmarks at tiny sizes: that they measure what they say."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from bench_helpers import TINY, bench
from checkpoints import GPT_NEOX, LLAMA, nazx, write_checkpoint
from cli_helpers import tiny_checkpoint
from models import INATTENTION, checkpoint

from nazx_cli.bench import recall, workloads
from nazx_cli.bench.growth import extrapolated
from nazx_cli.bench.models import zipf_ids
from nazx_cli.bench.peers import llama_peer
from nazx_cli.bench.peers import transformers_peer as peers
from nazx_cli.bench.processes import memory, room, training
from nazx_cli.bench.results import Row
from nazx_cli.bench.setup import Settings, Setup
from nazx_cli.catalog.registry import Registry
from nazx_cli.engine.language_model import load_model
from nazx_cli.errors import DocumentError

KEYS = {
    "workload",
    "measure",
    "tokens",
    "unit",
    "dtype",
    "layout",
    "kernel",
    "ours",
    "peer",
    "theirs",
    "ratio",
    "paired_ratio",
    "note",
    "details",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny", window=96))


@pytest.fixture
def tiny_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "find", lambda registry, name: TINY)


def rows_of(*arguments: str) -> list[dict[str, Any]]:
    """The rows that ``nazx bench --json`` prints."""
    report = json.loads(bench("--json", *arguments)[0])
    assert report["complete"] is True
    return list(report["rows"])


def run(name: str, **settings: Any) -> list[Row]:
    """The rows of one workload."""
    return list(workloads.WORKLOADS[name].run(Setup(Settings(**settings))))


def check_ratio(row: dict[str, Any]) -> None:
    ours, theirs = row["ours"], row["theirs"]
    assert row["ratio"] == pytest.approx(theirs["median"] / ours["median"])
    pairs = [b / a for a, b in zip(ours["runs"], theirs["runs"], strict=True)]
    assert row["paired_ratio"] == pytest.approx(median(pairs))


# The real model


@pytest.mark.parametrize("name", ("prefill", "decode"))
def test_the_model_is_measured_beside_transformers(name: str, model: str) -> None:
    pytest.importorskip("transformers")
    rows = rows_of(name, "-m", model, "--repeat", "3", "--dtype", "float32")
    assert {row["tokens"] for row in rows} == {76}  # every prompt is cut to the window
    assert [(row["dtype"], row["peer"].split()[0]) for row in rows] == [
        ("float32", "transformers"),
        ("float32", "llama.cpp"),
        ("int8", "llama.cpp"),
        ("nf4", "llama.cpp"),
    ]
    for row in rows:
        assert set(row) == KEYS
        assert (row["workload"], row["unit"]) == (name, "s")
        assert len(row["ours"]["runs"]) == 3
        assert 0 < row["ours"]["low"] <= row["ours"]["median"] <= row["ours"]["high"]
    assert len(rows[0]["theirs"]["runs"]) == 3
    check_ratio(rows[0])
    limits = [row["details"].get("limit_seconds", 0.0) for row in rows[1:]]
    if name == "decode":  # fewer bytes take less time to read
        assert limits[0] > limits[1] > limits[2] > 0
    else:
        assert limits == [0.0, 0.0, 0.0]


def test_prefill_shows_that_both_sides_compute_the_same(model: str) -> None:
    pytest.importorskip("transformers")
    rows = run("prefill", model=model, dtype="float32", repeat=1, prompts=(40,), quantize=())
    assert rows[0].details["largest_logit_difference"] < 1e-4


@pytest.mark.parametrize("base", (GPT_NEOX, LLAMA), ids=("gpt_neox", "llama"))
def test_the_peer_decodes_the_same_tokens(base: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from nazx_cli.bench.models import Ours

    lm = load_model(write_checkpoint(tmp_path, nazx(base, {"kind": "full"})))
    peer = peers.TransformersPeer.from_folder(lm.config, lm.folder, torch.float32)
    ids = zipf_ids(300, 30)
    ours = Ours(lm)
    context, logits = ours.prefill(ids)
    cache, theirs = peer.prefill(ids.long())
    assert (logits - theirs).abs().max() < 1e-4
    token = int(logits.argmax())
    assert ours.decode(context, token, 8) == peer.decode(cache, token, 8)


@pytest.mark.slow
def test_without_its_rivals_our_figures_stand_alone(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (peers, llama_peer):
        monkeypatch.setattr(module, "is_installed", lambda: False)
    rows = rows_of("prefill", "decode", "-m", model, "--quick", "--repeat", "1")
    assert [row["peer"] for row in rows] == ["transformers", "llama.cpp"] * 2
    for row in rows:
        assert row["ours"]["median"] > 0
        assert (row["theirs"], row["ratio"]) == (None, None)
        assert "is not installed: pip install" in row["note"]
    out, _ = bench("prefill", "-m", model, "--quick", "--repeat", "1")
    assert "not installed" in out


def test_a_model_that_rivals_cannot_run_has_none(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, nazx(GPT_NEOX, INATTENTION))
    rows = run("decode", model=str(folder), repeat=1, prompts=(20,), new_tokens=2, quantize=())
    assert [row.theirs for row in rows] == [None, None]
    assert [row.note for row in rows] == [
        "transformers cannot run InAttention",
        "llama.cpp cannot run InAttention",
    ]


# Random models


def test_the_first_token_is_measured_in_both_types(
    tiny_shapes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(llama_peer, "is_installed", lambda: False)
    rows = run(
        "first-token",
        repeat=2,
        contexts=(50, 3000),
        layouts=("postings", "ids"),
        peer_lengths=(40, 80),
    )
    further = [row for row in rows if row.measure.startswith("further token")]
    expected = [
        (dtype, layout, count)
        for dtype in ("bfloat16", "float32")
        for layout in ("postings", "ids")
        for count in (40, 80, 50, 3000)
    ]
    beside = [row for row in rows if row.peer.startswith("transformers")]
    assert [(row.dtype, row.layout, row.tokens) for row in beside] == expected
    assert [(row.dtype, row.layout, row.tokens) for row in further] == expected
    for row in beside:
        check_ratio(row.to_dict())
        is_measured = row.tokens in (40, 80)
        assert row.note == ("" if is_measured else "theirs is extrapolated from 40, 80 tokens")
        assert row.details["distinct_tokens"] == len(zipf_ids(300, row.tokens).unique())
    grown = [row for row in rows if row.measure.startswith("k of ratio")]
    assert [row.dtype for row in grown] == ["bfloat16", "float32"]
    for row in grown:
        difference = row.details["their_k"] - row.details["our_k"]
        assert row.ours.median == pytest.approx(difference)
    assert all(len(row.ours.runs) == 2 and row.ours.low > 0 for row in (*beside, *further))


def test_first_token_of_the_larger_shapes_is_ours_alone(
    tiny_shapes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nazx_cli.bench import growth

    for module in (peers, llama_peer):
        monkeypatch.setattr(module, "is_installed", lambda: False)
    monkeypatch.setattr(growth, "LARGER", 300)
    monkeypatch.setattr(growth, "CONTEXTS", (200,))
    rows = run("first-token", repeat=1, dtype="float32", peer_lengths=(100,))
    assert [(row.tokens, row.measure) for row in rows[-2:]] == [
        (300, "first token, nazx-1b"),
        (300, "further token, nazx-1b"),
    ]
    missing = [row for row in rows if row.peer]
    assert {row.tokens for row in missing} == {100, 200}
    assert all(row.theirs is None and "not installed" in row.note for row in missing)


def test_extrapolation_recovers_a_quadratic() -> None:
    def seconds(n: int) -> float:
        return 3e-4 * n + 2e-8 * n * n

    for lengths in ((4000, 8000), (4000, 8000, 16_000)):
        measured = {n: (seconds(n), 2 * seconds(n)) for n in lengths}
        for count in (1, 4000, 100_000, 1_000_000):
            found = extrapolated(measured, count)
            assert found == pytest.approx((seconds(count), 2 * seconds(count)))


def test_extrapolation_of_noise_never_falls() -> None:
    assert extrapolated({4000: (1.0,), 8000: (1.5,)}, 80_000) == pytest.approx((15.0,))


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
def test_memory_held_is_as_predicted(tiny_shapes: None, dtype: str) -> None:
    rows = run("memory", contexts=(2000, 20000), dtype=dtype, watched=False)
    held = [row.to_dict() for row in rows]
    assert [(row["tokens"], row["layout"]) for row in held] == [
        (count, layout)
        for count in (2000, 20000)
        for layout in ("ids", "states", "postings", "pairs", "tables", "grams", "cached")
    ]
    width = 4 if dtype == "float32" else 2
    for row in held:
        predicted = row["details"]["predicted_bytes"]
        # Room for new positions comes with the first of them: up to 2 kB.
        assert row["ours"]["median"] == pytest.approx(predicted, rel=0.02, abs=2100)
        assert row["theirs"]["median"] == row["tokens"] * 2 * 3 * 48 * width
        by_position = row["ours"]["median"] / row["tokens"]
        assert row["details"]["per_position_bytes"] == pytest.approx(by_position)
        check_ratio(row)


def test_the_longest_context_is_held_in_a_process_of_its_own_too(tiny_shapes: None) -> None:
    *_, process = rows_of("memory", "--ctx", "200", "--ctx", "2000", "--layout", "pairs")
    assert (process["tokens"], process["layout"]) == (2000, "pairs")
    parts = process["details"]["weights_bytes"] + process["details"]["context_bytes"]
    assert process["ours"]["median"] > parts > 0


def test_a_layout_that_would_take_too_much_is_left_out(
    tiny_shapes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nazx_cli.bench.processes.memory._MOST", 100_000)
    monkeypatch.setattr("nazx_cli.bench.processes.memory.WATCHED", "none")
    out, err = bench("memory", "--ctx", "2000", "--json", "--layout", "cached", "--layout", "ids")
    assert [row["layout"] for row in json.loads(out)["rows"]] == ["ids"]
    assert "layout cached: left out" in err


@pytest.mark.slow
def test_the_estimated_peak_is_near_that_of_a_real_process() -> None:
    settings = Settings(
        peaks=("nazx-70m",), contexts=(20_000,), layouts=("postings",), dtype="float32"
    )
    row = next(iter(memory.peak(Setup(settings))))
    details = row.details
    assert details["weights_bytes"] == details["predicted_weights_bytes"]
    assert details["context_bytes"] == pytest.approx(details["predicted_context_bytes"], rel=0.02)
    assert row.theirs is not None
    assert row.ours.median == pytest.approx(row.theirs.median, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [(), ("nf4",)])
def test_the_longest_prompt_is_read_within_the_plan(kinds: tuple[str, ...]) -> None:
    settings = Settings(shapes="nazx-70m", larger="", quantize=kinds)
    prompt, process, *quantized = room.room(Setup(settings))
    assert prompt.tokens == process.tokens == 2052 - 64
    assert prompt.ours.median > 0
    assert process.theirs is not None
    assert 0.7 < process.ours.median / process.theirs.median < 1.1
    assert [row.dtype for row in quantized] == [kind for kind in kinds for _ in range(2)]
    for row in quantized[1::2]:
        assert row.details["weights_bytes"] < process.details["weights_bytes"]


@pytest.mark.slow
def test_a_step_of_a_training_is_measured_by_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "KINDS", training.KINDS[:1])
    rows = run("training", contexts=(100, 600))
    short, short_time, long, long_time, growth = rows
    assert (short.tokens, long.tokens, growth.tokens) == (100, 600, 600)
    assert 0 < short.ours.median < long.ours.median
    assert long.theirs is not None and short.theirs is not None
    assert long.theirs.median == 36 * short.theirs.median  # all by all
    assert 0 < short_time.ours.median < long_time.ours.median
    assert growth.measure.startswith("k of memory") and growth.ours.median > 0


# Documents


def test_reading_is_measured_for_the_files_that_are_given(model: str, tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("The fox bought a lantern.\n\nThe heron bought an umbrella.\n" * 50)
    rows = rows_of("read", "-m", model, "-f", str(book), "--repeat", "2")
    assert [row["measure"] for row in rows] == [
        "ready for the question",
        "first question ranked",
        "later question ranked",
    ]
    for row in rows:
        assert len(row["ours"]["runs"]) == 2
        assert row["details"]["characters"] == len(book.read_text())
        assert row["tokens"] > 1000


def _stories(count: int) -> list[dict[str, Any]]:
    """Stories of which each section names one animal that no other does."""
    stories = []
    for n in range(count):
        sections = [
            {
                "id": str(i),
                "text": f"Long ago the zebra{n}x{i} lived in a house. " + "It rained. " * 400,
            }
            for i in range(3)
        ]
        asked = {"question": f"Where did the zebra{n}x1 live?", "answers": ["in a house"]}
        qa = [{"sections": "1" if n % 2 else ["1"], **asked}]
        stories.append({"story": f"tale {n}", "sections": sections, "qa": qa})
    return stories


def test_recall_finds_sections_that_a_question_names(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(map(json.dumps, _stories(24))))
    folder = checkpoint("llama", "windowed")[0]
    settings = Settings(model=str(folder), files=(str(file),))
    rows = list(recall.run(Setup(settings)))
    assert len(rows) == 3
    for row in rows:
        assert row.details["questions"] >= 10
        assert row.ours.median == 1.0
        assert row.theirs is not None and row.theirs.median == 1.0


def test_recall_refuses_files_without_questions(tmp_path: Path) -> None:
    for number, text in enumerate(("", "no json", '{"a": 1}', "[1]")):
        file = tmp_path / f"{number}.jsonl"
        file.write_text(text)
        with pytest.raises(DocumentError, match=file.name):
            recall.read_stories([file])
