"""Estimates against what is really allocated, and budgets that hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import GPT_NEOX, nazx, write_checkpoint
from cli_helpers import run_nazx, tiny_checkpoint
from models import checkpoint, model, random_ids

import nazx_cli
from nazx_cli import load_model
from nazx_cli.catalog.registry import Registry
from nazx_cli.config import ModelConfig
from nazx_cli.context.cost import Size
from nazx_cli.engine.language_model import load_planned
from nazx_cli.errors import MemoryLimitError
from nazx_cli.kernels import KernelName
from nazx_cli.memory import probe
from nazx_cli.memory.estimate import (
    TextSize,
    as_inattention,
    distinct_tokens,
    estimate,
    longest_context,
    weight_bytes,
)
from nazx_cli.memory.plan import LoadOptions, Machine, Plan, plan
from nazx_cli.memory.probe import read_memory


@pytest.fixture(autouse=True)
def process_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process of these tests holds is none of their matter: see test_limits."""
    monkeypatch.setattr("nazx_cli.memory.plan.process_bytes", lambda held, documents: 0)


@pytest.mark.parametrize("kind", ("inattention", "windowed", "full"))
@pytest.mark.parametrize("base", ("neox-sequential", "llama"))
@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
def test_estimated_weights_are_those_allocated(base: str, kind: str, dtype: str) -> None:
    lm = model(base, kind, dtype)
    real = sum(p.numel() * p.element_size() for p in lm.decoder.parameters())
    assert weight_bytes(lm.config, dtype, lm.decoder.dtype.itemsize) == real


@pytest.mark.parametrize("live", (1, 255, 256, 257, 700, 2000))
@pytest.mark.parametrize("kind", ("windowed", "full"))
def test_estimated_live_caches_are_those_allocated(kind: str, live: int) -> None:
    lm = model("llama", kind)
    context = lm.new_context()
    resident = random_ids(3000, seed=50) if kind == "windowed" else []
    context.append(resident, resident=True)
    context.append(random_ids(live, seed=51))
    lm.next_logits(context)
    found = estimate(lm.config, "float32", "cached", Size(len(context), 300, live))
    # Where a window is far smaller than the pieces run at once, growth stops a step earlier.
    assert context.nbytes == pytest.approx(found.context, rel=0.04)


def test_distinct_tokens_grow_like_real_english_and_stop_at_the_vocabulary() -> None:
    assert distinct_tokens(0, 50_000) == 0
    assert distinct_tokens(1, 50_000) == 1
    for positions, counted in ((10_000, 2087), (100_000, 7470), (1_000_000, 19_350)):
        assert distinct_tokens(positions, 50_000) == pytest.approx(counted, rel=0.12)
    assert distinct_tokens(10**12, 50_000) == 50_000


@pytest.mark.parametrize("name", ("nazx-160m", "nazx-1b", "nazx-smol-135m"))
@pytest.mark.parametrize("precision", ("bfloat16", "int8", "nf4"))
def test_the_longest_context_is_the_last_that_fits(name: str, precision: str) -> None:
    entry = Registry.load().find(name)
    assert entry is not None
    config, limit = entry.config, 3 * weight_bytes(entry.config, "bfloat16") + 400_000_000
    held = estimate(config, precision, "cached", Size(1, 1))
    longest = longest_context(config, held, limit, 2)

    def total(positions: int) -> int:
        size = Size(positions, distinct_tokens(positions, config.vocab_size))
        return estimate(config, precision, "cached", size).total

    assert total(longest) <= limit < total(longest + 1)


def test_nothing_fits_in_nothing() -> None:
    config = ModelConfig.from_dict(GPT_NEOX)
    assert longest_context(config, estimate(config, "nf4", "cached", Size(1, 1)), 1000, 2) == 0


def test_the_plan_gives_up_as_little_as_it_must() -> None:
    entry = Registry.load().find("nazx-1b")
    assert entry is not None
    config = entry.config

    def within(limit: int) -> Plan:
        documents = TextSize(100_000, distinct_tokens(100_000, config.vocab_size))
        machine = Machine("bfloat16", can_quantize=True)
        return plan(config, documents, LoadOptions(limit=limit, ctx=0), machine).check()

    previous = 10**12
    seen = []
    for limit in (10**10, 2_300_000_000, 1_900_000_000, 1_650_000_000):
        chosen = within(limit)
        assert chosen.estimate.total <= min(limit, previous)
        previous = chosen.estimate.total
        seen.append(chosen.estimate.precision)
    assert seen[0] == "bfloat16" and seen[-1] == "nf4" and "int8" in seen
    with pytest.raises(MemoryLimitError, match="nf4 weights") as caught:
        within(10**9)
    assert caught.value.exit_code == 3
    assert caught.value.hint


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
@pytest.mark.parametrize("kernel", ("torch", "native"))
@pytest.mark.parametrize("tokens", (0, 200_000))
def test_a_conversation_that_is_said_to_fit_does(
    dtype: str, kernel: KernelName, tokens: int
) -> None:
    entry = Registry.load().find("nazx-1b")
    assert entry is not None
    config = as_inattention(entry.config)
    documents = TextSize(tokens, distinct_tokens(tokens, config.vocab_size))
    machine = Machine(dtype, 0, 300_000_000, can_quantize=True, kernel=kernel)

    def planned(ctx: int) -> Plan:
        return plan(config, documents, LoadOptions(limit=2_300_000_000, ctx=ctx), machine)

    told = re.search(r"tokens of conversation fit: use --ctx (\d+)", planned(10**9).hint)
    assert told is not None
    assert planned(int(told[1])).fits and not planned(int(told[1]) + 1).fits


def _limited(tmp_path: Path, positions: int, distinct: int, layout: str) -> tuple[Path, int]:
    """A model, and a limit that ``layout`` just meets at that size."""
    config = nazx(GPT_NEOX, {"kind": "inattention"}, hidden_size=128, vocab_size=8000)
    folder = write_checkpoint(tmp_path / "model", config)
    size = Size(positions, distinct)
    found = estimate(ModelConfig.from_folder(folder), "float32", layout, size)
    return folder, found.total


def test_a_growing_context_moves_to_a_smaller_layout_with_the_same_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAZX_NATIVE", "0")  # whose index would take too little to outgrow this
    ids = torch.randint(8000, (60_000,), generator=torch.Generator().manual_seed(1))
    folder, limit = _limited(tmp_path, 40_000, 8000, "postings")
    options = LoadOptions("cpu", "float32", limit=limit, ctx=0)
    lm = load_planned("tiny", folder, TextSize(1000, 900), options)
    assert lm.plan is not None and lm.plan.layout == "pairs"
    free = load_model(folder, layout="postings")
    kept, unlimited = lm.new_context(), free.new_context()
    layouts = []
    for start in range(0, 60_000, 20_000):
        for context in (kept, unlimited):
            context.append(ids[start : start + 20_000])
        assert (lm.next_logits(kept) - free.next_logits(unlimited)).abs().max() < 1e-4
        layouts.append(kept.layout)
    assert layouts[0] in ("pairs", "postings") and layouts[-1] == "ids"
    assert kept.nbytes < unlimited.nbytes


def test_a_context_that_fits_in_no_layout_is_refused_and_stays_whole(tmp_path: Path) -> None:
    folder, limit = _limited(tmp_path, 10_000, 8000, "ids")
    options = LoadOptions("cpu", "float32", layout="ids", limit=limit, ctx=0)
    lm = load_planned("tiny", folder, TextSize(1000, 900), options)
    context = lm.new_context()
    context.append(torch.arange(5_000_000) % 8000)
    with pytest.raises(MemoryLimitError, match="5,000,000 tokens"):
        lm.next_logits(context)
    assert len(context) == 5_000_000
    context.delete(100, 5_000_000)
    assert lm.next_logits(context).isfinite().all()


def test_running_out_of_memory_keeps_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = model("llama", "inattention")
    context = lm.new_context()
    ids = random_ids(20, seed=52)
    context.append(ids)

    def fail(self, h, attended):  # type: ignore[no-untyped-def]
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(type(lm.decoder.layers[0]), "residual", fail)
        with pytest.raises(MemoryLimitError, match="no memory left"):
            lm.next_logits(context)
    assert context.ids.tolist() == ids
    assert (lm.next_logits(context) - lm.logits(ids)[-1]).abs().max() < 1e-4


def test_a_limit_that_nothing_fits_ends_with_the_arithmetic_and_exit_code_3() -> None:
    folder = checkpoint("llama", "windowed")[0]
    out, err, code = run_nazx("ask", "-m", str(folder), "--vram-limit", "1MB", "Hello?")
    assert (out, code) == ("", 3)
    assert "weights" in err and "workspace" in err and "; next: " in err


def test_a_limit_says_what_was_picked() -> None:
    folder = checkpoint("llama", "full")[0]
    arguments = ("--vram-limit", "2GB", "--max-tokens", "2", "--dtype", "float32", "Hello?")
    _, err, code = run_nazx("ask", "-m", str(folder), *arguments)
    assert code == 0
    assert "note: float32 weights, layout cached" in err


def test_readings_of_memory_make_sense() -> None:
    reading = read_memory("cpu")
    assert 0 < reading.used <= reading.total
    assert 0 < reading.free <= reading.total


@pytest.mark.parametrize(
    ("row", "files"),
    [
        ("0::/", {"memory.max": "3000000\n", "memory.current": "1000000"}),
        ("0::/a/b", {"a/memory.max": "3000000", "a/memory.current": "1000000"}),
        (
            "4:cpu,memory:/gone",
            {"memory/memory.limit_in_bytes": "3000000", "memory/memory.usage_in_bytes": "1000000"},
        ),
    ],
)
def test_what_a_container_leaves_is_what_there_is(
    row: str, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text(f"9:name=systemd:/\n{row}\n")
    for name, text in {"a/b/memory.max": "max", "a/b/memory.current": "7", **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(probe, "_PROC", tmp_path)
    monkeypatch.setattr(probe, "_GROUPS", tmp_path)
    reading = read_memory("cpu")
    assert (reading.free, reading.total) == (2_000_000, 3_000_000)
    place = next(iter(files)).rpartition("/")[0]
    stat = "anon 3\ninactive_file 400000\ntotal_inactive_file 400000\n"
    (tmp_path / place / "memory.stat").write_text(stat)
    assert read_memory("cpu").free == 2_400_000


def test_the_estimate_command_gives_its_table_and_its_json() -> None:
    out, _, code = run_nazx("vram-estimate", "-m", "nazx-160m", "--layout", "auto", "--ctx", "100k")
    assert code == 0
    for word in ("bfloat16", "int8", "nf4", "dense KV cache", "8GB", "24GB", "window takes"):
        assert word in out
    assert "longest context" in run_nazx("vram-estimate", "--layout", "pairs")[0]
    arguments = (
        "vram-estimate",
        "-m",
        "nazx-160m",
        "--layout",
        "postings",
        "--vram",
        "1GB",
        "--json",
    )
    out, _, code = run_nazx(*arguments)
    data = json.loads(out)
    assert code == 0
    assert (data["tokens"], data["layout"]) == (100_000, "postings")
    row = data["rows"][0]
    parts = ("weights_bytes", "context_bytes", "workspace_bytes")
    assert row["total_bytes"] == sum(row[part] for part in parts)
    assert row["fits"] == {"1GB": row["total_bytes"] <= 10**9}
    assert row["dense_cache_bytes"] == 100_000 * 36_864


def test_the_topic_memory_shows_what_the_estimate_command_prints() -> None:
    topic = (Path(nazx_cli.__file__).parent / "help" / "memory.md").read_text(encoding="utf-8")
    command, _, shown = topic.partition("$ nazx ")[2].partition("```")[0].partition("\n")
    assert shown == run_nazx(*command.split())[0]


def test_the_estimate_command_counts_what_the_window_takes() -> None:
    def context(tokens: str) -> int:
        out, _, _ = run_nazx("vram-estimate", "--ctx", tokens, "--json")
        return int(json.loads(out)["rows"][0]["context_bytes"])

    assert context("1000") < context("2052") < context("100k") < 2 * context("2052")


@pytest.mark.parametrize(("tokens", "attended"), [(1000, 1000), (100_000, 2052)])
def test_the_estimate_command_says_what_of_a_context_is_attended_to(
    tokens: int, attended: int
) -> None:
    data = json.loads(run_nazx("vram-estimate", "--ctx", str(tokens), "--json")[0])
    assert (data["tokens"], data["attended_tokens"]) == (tokens, attended)
    told = run_nazx("vram-estimate", "--ctx", str(tokens))[0]
    assert f"{attended:,} tokens" in told
    assert ("The other 97,948 are held as ids" in told) == (attended < tokens)


def test_the_estimate_command_tells_the_share_of_one_of_several_processes() -> None:
    wanted = ("vram-estimate", "-m", "nazx-160m", "--layout", "states", "--ctx", "1M", "--json")
    whole, share = (
        json.loads(run_nazx(*wanted, "--ranks", ranks)[0])["rows"][0] for ranks in ("1", "4")
    )
    ids = 4_000_000  # the first process has all of them
    assert share["context_bytes"] - ids == pytest.approx(
        (whole["context_bytes"] - ids) / 4, rel=0.01
    )


def test_the_estimate_command_tells_what_blocks_and_split_weights_come_to(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "m", kind="full", window=100_000)
    wanted = ("vram-estimate", "-m", str(folder), "--ctx", "90k", "--json")
    rows = [
        json.loads(run_nazx(*wanted, *more)[0])["rows"]
        for more in (("--ranks", "1"), ("--ranks", "2"), ("--ranks", "2", "--split-weights"))
    ]
    whole, blocks, split = (each[0] for each in rows)
    assert blocks["weights_bytes"] == whole["weights_bytes"]
    assert split["weights_bytes"] == pytest.approx(whole["weights_bytes"] / 2, rel=0.02)
    for each in (blocks, split):
        assert each["context_bytes"] == pytest.approx(whole["context_bytes"] / 2, rel=0.1)
    assert [len(each) for each in rows] == [3, 3, 1]  # what is quantized is not split
    _, err, code = run_nazx(*wanted, "--split-weights")
    assert code == 2 and err.count("\n") == 1 and "one process" in err


def test_the_estimate_command_counts_a_document(tmp_path: Path) -> None:
    folder = checkpoint("llama", "windowed")[0]
    (tmp_path / "text.txt").write_text("one two three one two three")
    out, _, code = run_nazx(
        "vram-estimate", "-m", str(folder), "-f", str(tmp_path / "text.txt"), "--json"
    )
    assert code == 0
    data = json.loads(out)
    ids = load_model(folder).tokenizer.encode("one two three one two three")
    assert (data["tokens"], data["distinct_tokens"]) == (len(ids), len(set(ids)))


def test_the_estimate_command_tells_what_of_a_folder_was_left_out(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one two three")
    (tmp_path / "blob.bin").write_bytes(bytes(range(256)))
    arguments = ("-m", str(checkpoint("llama", "windowed")[0]), "-f", str(tmp_path))
    out, err, code = run_nazx("vram-estimate", *arguments)
    assert code == 0 and "8 tokens (7 distinct)" in out
    assert err.startswith("note: ") and "blob.bin is a binary file; left out" in err


@pytest.mark.parametrize("arguments", (["--layout", "cloud"], ["--vram", "much"], ["-m", "nope"]))
def test_mistakes_of_the_estimate_command_are_one_line(arguments: list[str]) -> None:
    out, err, code = run_nazx("vram-estimate", *arguments)
    assert out == "" and code in (2, 5)
    assert len(err.splitlines()) == 1 and "; next: " in err


def test_the_estimate_command_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from nazx_cli.cli.app import app\n"
        "try: app(['vram-estimate', '--ctx', '100000'])\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'numpy', 'tokenizers', 'huggingface_hub')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
