"""Whichever way a book comes to a model, the same is planned for it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from chat_helpers import new_repl
from checkpoints import GPT_NEOX, nazx, write_checkpoint
from cli_helpers import run_nazx, tiny_checkpoint
from models import random_ids
from prompt_toolkit.input import DummyInput

from nazx_cli import load_model
from nazx_cli.catalog.registry import Registry
from nazx_cli.cli.shared.answers import AnswerOptions
from nazx_cli.cli.shared.opening import Opening
from nazx_cli.cli.shared.options import ChatOptions, ModelOptions, OutputOptions
from nazx_cli.config import AttentionConfig, ModelConfig
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.memory.estimate import TextSize, distinct_tokens
from nazx_cli.memory.plan import CONVERSATION, CPU_WORK, GPU_WORK, LoadOptions, Machine, Plan, plan
from nazx_cli.tokenizer import Tokenizer

VOCABULARY = 8000  # far more than the tokenizer has: what is guessed would show
ATTENTION = {
    "inattention": {"kind": "inattention"},
    "windowed": {"kind": "windowed", "local_window": 60, "sink_tokens": 4, "far": "none"},
}


@pytest.fixture
def book(tmp_path: Path) -> Path:
    text = (Path(__file__).parent / "data" / "alice.txt").read_text(encoding="utf-8")
    (tmp_path / "alice.txt").write_text(text[:20_000], encoding="utf-8")
    return tmp_path / "alice.txt"


def model(folder: Path, kind: str) -> Path:
    config = nazx(GPT_NEOX, ATTENTION[kind], hidden_size=128, vocab_size=VOCABULARY)
    return write_checkpoint(folder, config)


@dataclass
class Recorder:
    """The plans of the models that were loaded, and those that were asked for."""

    loaded: list[Plan | None] = field(default_factory=list)
    asked: list[Plan] = field(default_factory=list)

    def last(self) -> Plan:
        plan = self.loaded[-1]
        assert plan is not None
        return plan


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    # The form of the kernel is the machine's, and vram-estimate knows of none.
    monkeypatch.setenv("NAZX_NATIVE", "0")
    # What a process holds differs from way to way.
    monkeypatch.setattr("nazx_cli.memory.plan.process_bytes", lambda held, documents: 0)
    found = Recorder()
    make, plan_for = LanguageModel.__init__, LanguageModel.plan_for

    def made(self, *args, **options):  # type: ignore[no-untyped-def]
        make(self, *args, **options)
        found.loaded.append(self.plan)

    def asked(self, *args, **options):  # type: ignore[no-untyped-def]
        found.asked.append(plan_for(self, *args, **options))
        return found.asked[-1]

    monkeypatch.setattr(LanguageModel, "__init__", made)
    monkeypatch.setattr(LanguageModel, "plan_for", asked)
    return found


def figures(plan: Plan) -> tuple[int, int, str, str, int, int, bool]:
    """All that a plan decides."""
    e = plan.estimate
    return (
        *(e.size.positions, e.size.distinct),
        *(e.precision, e.layout, e.context, e.total, plan.fits),
    )


def run(*arguments: str, stdin: str = "") -> str:
    out, err, code = run_nazx(*arguments, stdin=stdin)
    assert code == 0, err
    return out


def by_model_command(first: Path, then: Path, book: Path, limit: int, ctx: int | None) -> None:
    """A chat about the book with ``first`` that goes on with ``then``, and is asked what it
    takes."""
    chat = Opening(
        (str(book),),
        ModelOptions(model=str(first), dtype="bfloat16", vram_limit=limit),
        AnswerOptions(ctx=ctx, max_tokens=1),
        OutputOptions(quiet=True),
        ChatOptions(no_save=True),
        frozenset(),
        False,
    ).open()
    repl = new_repl(chat, DummyInput())
    repl.handle(f"/model {then}")
    repl.handle("/estimate")


def all_paths(
    folder: Path, book: Path, recorder: Recorder, limit: int, ctx: int | None = None
) -> dict[str, Plan]:
    """What is planned for the book by each way to it."""
    held = ("-m", str(folder), "--dtype", "bfloat16", "--vram-limit", str(limit))
    short = ("--max-tokens", "1", *(("--ctx", str(ctx)) if ctx else ()))
    found: dict[str, Plan] = {}
    run("ask", *held, *short, "-f", str(book), "Who?")
    found["ask"] = recorder.last()
    run("chat", *held, *short, "-f", str(book), "--session", "book", stdin="Who?\n")
    found["chat"] = recorder.last()
    run("chat", *held, "--resume")
    found["resume"] = recorder.last()
    run("chat", *held, *short, "--session", "none", stdin="Who?\n")
    run("chat", *held, "--session", "none", "-f", str(book))
    found["resume with a file"] = recorder.last()
    other = tiny_checkpoint(book.parent / "other")
    by_model_command(other, folder, book, limit, ctx)
    found["/model"] = recorder.last()
    (found["/estimate"],) = recorder.asked
    return found


@pytest.mark.parametrize("ctx", (None, 30_000))
@pytest.mark.parametrize("kind", ("inattention", "windowed"))
def test_every_way_to_a_book_plans_the_same(
    kind: str, ctx: int | None, tmp_path: Path, book: Path, recorder: Recorder
) -> None:
    folder, limit = model(tmp_path / "model", kind), 2 * 10**9
    found = all_paths(folder, book, recorder, limit, ctx)
    ids = Tokenizer.from_folder(folder).encode(book.read_text(encoding="utf-8"))
    talk = CONVERSATION if ctx is None else ctx
    distinct = len(set(ids)) + distinct_tokens(talk, VOCABULARY)
    first = found["ask"]
    assert figures(first)[:2] == (len(ids) + talk, distinct)
    assert first.layout == {"inattention": "pairs", "windowed": "cached"}[kind]
    assert {name: figures(plan) for name, plan in found.items()} == dict.fromkeys(
        found, figures(first)
    )

    asked = ("-m", str(folder), "-f", str(book), "--vram", str(limit), "--json")
    data = json.loads(run("vram-estimate", *asked, *(("--ctx", str(ctx)) if ctx else ())))
    row = data["rows"][0]
    assert (data["tokens"], data["distinct_tokens"]) == (len(ids), len(set(ids)))
    assert (data["conversation_tokens"], data["layout"]) == (talk, first.layout)
    assert row["precision"] == first.estimate.precision == "bfloat16"
    assert row["context_bytes"] == first.estimate.context
    # Its cards are GPUs, where the embedding stays in host memory.
    assert row["total_bytes"] + row["host_bytes"] == first.estimate.total
    assert row["fits"] == {str(limit): True}


def test_where_the_fastest_layout_is_too_large_every_way_takes_the_same_smaller_one(
    tmp_path: Path, book: Path, recorder: Recorder
) -> None:
    folder = model(tmp_path / "model", "inattention")
    asked = ("-m", str(folder), "-f", str(book), "--json", "--vram")
    limit = json.loads(run("vram-estimate", *asked, "1GB"))["rows"][0]["total_bytes"] - 1
    found = all_paths(folder, book, recorder, limit)
    assert {figures(plan) for plan in found.values()} == {figures(found["ask"])}
    assert found["ask"].layout == "postings" and not found["ask"].is_first_choice
    row = json.loads(run("vram-estimate", *asked, str(limit)))["rows"][0]
    assert row["layouts"] == {str(limit): "postings"} and row["fits"] == {str(limit): True}


def test_without_a_book_the_python_interface_plans_as_the_command_line(
    tmp_path: Path, recorder: Recorder
) -> None:
    folder, limit = model(tmp_path / "model", "inattention"), 2 * 10**9
    load_model(folder, dtype="bfloat16", vram_limit=limit)
    mine = recorder.last()
    held = ("-m", str(folder), "--dtype", "bfloat16", "--vram-limit", str(limit))
    run("ask", *held, "--max-tokens", "1", "Who?")
    assert figures(recorder.last()) == figures(mine)
    data = json.loads(run("vram-estimate", "-m", str(folder), "--ctx", str(CONVERSATION), "--json"))
    assert data["rows"][0]["total_bytes"] == mine.estimate.total


@pytest.mark.parametrize("counts", ((), (0,), (1,), (0, 7, 300, 1), (5000, 5000, 1)))
def test_the_size_of_documents_is_that_of_their_tokens(counts: tuple[int, ...]) -> None:
    texts = [random_ids(count, seed, 50_000) for seed, count in enumerate(counts)]
    for window in (1, 2, 3):
        own = replace(shapes("nazx-70m", 8), attention=AttentionConfig("inattention"))
        config = replace(own, attention=replace(own.attention, initial_window=window))
        size = TextSize.of((np.asarray(text, np.int32) for text in texts), config)
        assert size.tokens == sum(counts)
        padded = [[*[-1] * (window - 1), *text] for text in texts]
        seen = {tuple(t[i : i + window]) for t in padded for i in range(len(t) - window + 1)}
        assert size.distinct == len(seen)
        assert size.as_context().distinct_tokens == len({each for text in texts for each in text})


def shapes(name: str, window: int) -> ModelConfig:
    entry = Registry.load().find(name)
    assert entry is not None
    return replace(entry.config, attention=AttentionConfig("windowed", window, 4))


@pytest.mark.parametrize("window", (60, 5_000, 40_000))
def test_a_prompt_takes_what_the_model_was_trained_for_where_there_is_room(window: int) -> None:
    config = shapes("nazx-70m", window)
    found = plan(config, TextSize(), LoadOptions(limit=64_000_000_000), Machine("bfloat16"))
    assert found.live == window + 4


@pytest.mark.parametrize("work", (CPU_WORK, GPU_WORK))
@pytest.mark.parametrize("name", ("nazx-160m", "nazx-2.8b"))
def test_a_prompt_takes_no_more_than_can_be_read_in_bearable_time(name: str, work: float) -> None:
    config = shapes(name, 100_000)
    machine = Machine("bfloat16", work=work)
    found = plan(config, TextSize(), LoadOptions(limit=640_000_000_000), machine)
    assert found.live == min(100_004, max(2048, int(work / 2 / config.num_parameters)))


def test_a_prompt_takes_less_where_memory_is_short_and_never_crosses_the_limit() -> None:
    config = shapes("nazx-410m", 30_000)
    seen = set()
    for limit in range(1_500_000_000, 3_300_000_000, 300_000_000):
        found = plan(config, TextSize(), LoadOptions(limit=limit), Machine("bfloat16"))
        assert found.fits
        assert found.estimate.total <= limit
        assert found.live is not None
        seen.add(found.live)
    assert len(seen) > 3
    assert min(seen) >= CONVERSATION


def test_a_length_that_was_asked_for_is_what_there_is_room_for() -> None:
    config = shapes("nazx-160m", 30_000)
    for ctx, wanted in ((500, 500), (20_000, 20_000), (50_000, 30_004)):
        options = LoadOptions(limit=64_000_000_000, ctx=ctx)
        assert plan(config, TextSize(), options, Machine("bfloat16")).live == wanted


def test_the_window_of_a_planned_model_is_that_of_its_plan(tmp_path: Path) -> None:
    config = nazx(
        GPT_NEOX,
        {"kind": "windowed", "local_window": 30_000, "sink_tokens": 4, "far": "none"},
        hidden_size=512,
        num_hidden_layers=16,
        max_position_embeddings=32_768,
    )
    folder = write_checkpoint(tmp_path / "model", config)
    assert load_model(folder).window == 30_004
    lm = load_model(folder, vram_limit=2_000_000_000)
    assert lm.plan is not None
    assert CONVERSATION <= cast(int, lm.window) < 30_004
    assert lm.window == lm.plan.live
