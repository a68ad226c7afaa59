"""Runs: the same loss after a kill, the best kept, early stop, and the command itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from checkpoints import LLAMA, nazx, write_checkpoint
from cli_helpers import run_nazx
from models import WINDOWED, random_ids
from test_training_data import STORIES
from training_models import fresh, random_pack

from nazx_cli import load_model
from nazx_cli.checkpoint.adapters.lora import read_adapter
from nazx_cli.errors import UsageError
from nazx_cli.training.gradients.engines import FullByAutograd, OnPacks, lora_engine
from nazx_cli.training.lora import LoraSettings, attach
from nazx_cli.training.packing import Pack, weights_of
from nazx_cli.training.state import load_state, read_log
from nazx_cli.training.trainer import Progress, Schedule, Trainer, held_out_loss

WIDE = {**LLAMA, "max_position_embeddings": 4096}


def questions(folder: Path) -> Path:
    """A file of questions in NazX's own form."""
    path = folder / "questions.jsonl"
    lines = []
    for story in STORIES:
        asked = [
            {"question": q.text, "answers": list(q.answers), "sections": list(q.sections)}
            for q in story.questions[:8]
        ]
        sections = [{"id": s.id, "text": s.text} for s in story.sections]
        lines.append(json.dumps({"title": story.title, "sections": sections, "questions": asked}))
    path.write_text("\n".join(lines) + "\n")
    return path


def trainer(folder: Path, schedule: Schedule, train: list[Pack], held: list[Pack]) -> Trainer:
    lm = fresh(folder.parent / "model")
    torch.manual_seed(0)
    engine = OnPacks(lora_engine(lm.decoder, attach(lm.decoder, LoraSettings(4, 8.0))))
    folder.mkdir(exist_ok=True)
    return Trainer(engine, train, held, schedule, folder)


PACKS = [random_pack(seed, 10, 3) for seed in range(6)]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_log(folder) if "loss" in line]


def test_a_run_learns_and_ends(tmp_path: Path) -> None:
    schedule = Schedule(steps=40, batch_tokens=60, rate=2e-2, check_every=10)
    made = trainer(tmp_path / "run", schedule, PACKS[:2], PACKS[:1])
    before = held_out_loss(made.engine, PACKS[:1])
    seen: list[Progress] = []
    counters = made.run(seen.append)
    assert counters.step == 40 and counters.best < 0.5 * before
    assert [p.step for p in seen] == list(range(1, 41))
    assert seen[-1].share == 1 and seen[-1].seconds_left == 0
    assert 0 < seen[9].seconds_left < 60 and seen[9].held_out is not None
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0]
    assert held_out_loss(made.engine, PACKS[:1]) == pytest.approx(counters.best, rel=1e-4)


def test_a_run_goes_on_to_the_same_losses(tmp_path: Path) -> None:
    schedule = Schedule(steps=12, batch_tokens=60, rate=1e-2, check_every=4)
    trainer(tmp_path / "whole", schedule, PACKS, PACKS[:1]).run()
    first = trainer(tmp_path / "cut", schedule, PACKS, PACKS[:1])
    for _ in range(5):
        first.step()
    first.save()
    for _ in range(2):  # done, but not saved: to be done again
        first.step()
    trainer(tmp_path / "cut", schedule, PACKS, PACKS[:1]).run()
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert [line["step"] for line in read_log(tmp_path / "cut") if "loss" in line] == list(
        range(1, 13)
    )


def test_a_step_that_overflowed_teaches_nothing_after_a_resume_either(tmp_path: Path) -> None:
    schedule = Schedule(steps=9, batch_tokens=60, rate=1e-2)
    made = []
    for name in ("whole", "cut"):
        run = trainer(tmp_path / name, schedule, PACKS, [])
        for step in range(9):
            if step in (1, 2):
                run.engine.parameters[0].grad = torch.full_like(run.engine.parameters[0], torch.inf)
            if step == 4 and name == "cut":
                run.save()
                run = trainer(tmp_path / name, schedule, PACKS, [])
            run.step()
        made.append([each.detach().clone() for each in run.engine.parameters])
    for one, other in zip(*made, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("batch_tokens", (7, 50, 300))
def test_a_pass_over_the_data_is_one(tmp_path: Path, batch_tokens: int) -> None:
    tokens = sum(pack.tokens for pack in PACKS)
    schedule = Schedule(steps=None, batch_tokens=batch_tokens).lasting(2 * tokens)
    counters = trainer(tmp_path / "run", schedule, PACKS, []).run()
    assert 2 * tokens <= counters.tokens < 2 * tokens + max(batch_tokens, tokens // 2)
    assert counters.packs >= 2 * len(PACKS)


def test_who_looks_at_a_run_leaves_its_log_alone(tmp_path: Path) -> None:
    schedule = Schedule(steps=5, batch_tokens=60)
    running = trainer(tmp_path / "run", schedule, PACKS, [])
    running.step()
    trainer(tmp_path / "run", schedule, PACKS, [])
    running.step()
    assert [line["step"] for line in read_log(tmp_path / "run")] == [1, 2]


def test_a_run_ends_early_and_keeps_the_best(tmp_path: Path) -> None:
    # What is held out has nothing to do with what is learnt: it gets worse and worse.
    schedule = Schedule(steps=500, batch_tokens=30, rate=5e-2, check_every=2, patience=3)
    made = trainer(tmp_path / "run", schedule, PACKS[:1], PACKS[3:5])
    counters = made.run()
    assert counters.step < 500 and counters.worse == 3
    assert counters.step == counters.best_step + 6
    assert held_out_loss(made.engine, PACKS[3:5]) == pytest.approx(counters.best, rel=1e-4)


@pytest.mark.parametrize(("last", "kept"), [(0.5, 3), (2.0, 2)])
def test_of_a_run_that_was_stopped_the_last_steps_are_judged_too(
    last: float, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = Schedule(steps=9, batch_tokens=60, rate=1e-2, check_every=2)
    told = iter((1.0, last))
    monkeypatch.setattr("nazx_cli.training.trainer.held_out_loss", lambda *_: next(told))
    first = trainer(tmp_path / "run", schedule, PACKS, PACKS[:1])
    after = {}

    def stop_after_three(progress: Progress) -> None:
        step = first.counters.step
        after[step] = [each.detach().clone() for each in first.engine.parameters]
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run(stop_after_three)
    again = trainer(tmp_path / "run", schedule, PACKS, PACKS[:1])
    again.take_best()
    again.take_best()  # it is judged once
    assert (again.counters.best_step, again.counters.best) == (kept, min(1.0, last))
    for one, other in zip(again.engine.parameters, after[kept], strict=True):
        assert torch.equal(one, other)


def test_the_rate_rises_and_falls() -> None:
    schedule = Schedule(steps=1000, rate=1.0, warmup=0.1, floor=0.1)
    rates = [schedule.rate_at(share / 100) for share in range(101)]
    assert rates[0] < 0.02 and max(rates) == pytest.approx(rates[10], rel=0.03)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0.1)
    assert rates[55] == pytest.approx(0.1 + 0.9 * 0.5, rel=0.2)


def test_short_answers_count_more_by_token_and_less_in_all() -> None:
    pack = random_pack(3, 5, 4)
    weights = weights_of(pack)
    at = 0
    for branch in pack.branches:
        mine = weights[at : at + len(branch.answer)]
        assert float(mine.sum()) == pytest.approx(len(branch.answer) ** 0.5)
        at += len(branch.answer)


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
def test_all_weights_are_tuned(tmp_path: Path, dtype: str) -> None:
    lm = fresh(tmp_path / "model", dtype=dtype)
    engine = OnPacks(FullByAutograd(lm.decoder))
    (tmp_path / "run").mkdir()
    schedule = Schedule(steps=25, batch_tokens=30, rate=3e-3, check_every=100)
    made = Trainer(engine, PACKS[:1], [], schedule, tmp_path / "run")
    before = held_out_loss(engine, PACKS[:1])
    made.run()
    assert held_out_loss(engine, PACKS[:1]) < 0.6 * before
    assert all(parameter.dtype == torch.float32 for parameter in engine.parameters)


def test_a_state_of_other_settings_is_refused(tmp_path: Path) -> None:
    schedule = Schedule(steps=1, batch_tokens=10)
    made = trainer(tmp_path / "run", schedule, PACKS, [])
    made.run()
    other = [torch.nn.Parameter(torch.zeros(3, 3)) for _ in made.engine.parameters]
    from nazx_cli.errors import NazxError

    with pytest.raises(NazxError, match="other settings"):
        load_state(tmp_path / "run", other, torch.optim.AdamW(other))
    with pytest.raises(UsageError, match="nothing to train on"):
        trainer(tmp_path / "none", schedule, [], [])


COMMAND = (sys.executable, "-m", "nazx_cli", "tune")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_command_goes_on_to_the_same_losses(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", WIDE)
    data = questions(tmp_path)
    usual = ["-m", str(model), "--dtype", "float32", "--rank", "4", "--steps", "12"]
    usual += ["--batch-tokens", "1000", "--held-share", "4", "--check-every", "4", "--quiet"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([*COMMAND, str(data), *usual, "--out", str(whole)], check=True, timeout=300)
    process = subprocess.Popen([*COMMAND, str(data), *usual, "--out", str(cut)])
    patience = time.monotonic() + 240
    while len(losses(cut)) < 5 and time.monotonic() < patience and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*COMMAND, "--resume", "--out", str(cut)], check=True, timeout=300)
    assert losses(cut) == losses(whole) and len(losses(cut)) == 12
    mine, theirs = read_adapter(cut / "adapter"), read_adapter(whole / "adapter")
    for module, pair in mine.pairs.items():
        assert torch.equal(pair.up, theirs.pairs[module].up)


@pytest.mark.slow
def test_two_processes_tune_as_one_does(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", WIDE)
    usual = [str(questions(tmp_path)), "-m", str(model), "--dtype", "float32", "--rank", "4"]
    usual += ["--steps", "12", "--batch-tokens", "2000", "--held-share", "4", "--check-every", "6"]
    one, two = tmp_path / "one", tmp_path / "two"
    subprocess.run([*COMMAND, *usual, "--out", str(one)], check=True, timeout=300)
    both = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    both += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "--"]
    command = [*both, "nazx_cli", "tune", *usual, "--out", str(two), "--quiet"]
    done = subprocess.run(command, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is ready") == 1
    told = ([line.get("loss", line.get("held_out")) for line in read_log(f)] for f in (one, two))
    alone, together = told
    assert together == pytest.approx(alone, rel=2e-3) and len(alone) == 14


def test_a_second_process_in_a_folder_is_refused(tmp_path: Path) -> None:
    schedule = Schedule(steps=2, batch_tokens=10)
    made = trainer(tmp_path / "run", schedule, PACKS, [])
    refused: list[str] = []

    def also(progress: Progress) -> None:
        with pytest.raises(UsageError, match="another process is training") as error:
            made.run()
        refused.append(error.value.hint)

    assert made.run(also).step == 2
    assert refused == ["wait for it, or end it first"] * 2
    made.run()  # it was let go of


def test_a_far_memory_is_taught_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    _, err, code = run_nazx("tune", "book.txt", "--far", "inattention", "--out", "run")
    assert code == 2 and "nazx tune --far is one process, and 2 were started" in err


@pytest.mark.slow
def test_the_command_makes_an_adapter_that_ask_takes(tmp_path: Path) -> None:
    model = str(write_checkpoint(tmp_path / "model", WIDE))
    run = str(tmp_path / "run")
    arguments = [str(questions(tmp_path)), "-m", model, "--out", run, "--steps", "4"]
    arguments += ["--batch-tokens", "1500", "--rank", "2", "--held-share", "4"]
    arguments += ["--check-every", "2", "--questions", "2", "--json"]
    out, err, code = run_nazx("tune", *arguments)
    assert code == 0, err
    facts = json.loads(out)
    assert facts["steps"] == 4 and facts["held_out"] > 0
    checks = [line for line in read_log(tmp_path / "run") if "held_out" in line]
    assert len(checks) == 2 and {"f1", "says_not"} <= set(checks[0])
    card = (Path(facts["path"]) / "README.md").read_text()
    assert "questions.jsonl" in card and "rank 2" in card and "| 4 |" in card
    adapter = read_adapter(Path(facts["path"]))
    assert adapter.notes["base"] == model and adapter.is_reader
    assert adapter.notes["asking"] == {"together": 3, "apart": 10}
    book = tmp_path / "book.txt"
    book.write_text(STORIES[0].text)
    asked = ["ask", "-m", model, "-f", str(book), "--max-tokens", "4", "Where is the kettle?"]
    _, err, code = run_nazx(*asked, "--adapter", facts["path"])
    assert code == 0, err
    _, err, code = run_nazx(*asked, "--adapter", str(tmp_path))
    assert code == 5 and "is no adapter" in err
    passages = ("--together", "6", "--apart", "0")
    out, err, code = run_nazx("tune", "--resume", "--export", "--out", run, *passages)
    assert code == 0 and "is ready" in out
    path, mean = facts["path"], str(tmp_path / "mean")
    again = [*arguments[:4], mean, "--held-share", "4", "--steps", "0", "--json"]
    _, err, code = run_nazx("tune", *again, "--start", path, "--rank", "4")
    assert code == 2 and "has rank 2; next: add --rank 2" in err and not Path(mean).exists()
    _, err, code = run_nazx("tune", *again, "--start", str(tmp_path / "none"))
    assert code == 5 and not Path(mean).exists()
    out, err, code = run_nazx("tune", *again, "--start", path, "--start", path)
    assert code == 0, err
    facts = json.loads(out)
    assert facts["steps"] == 0 and facts["held_out"] > 0
    same = read_adapter(Path(facts["path"]))
    assert same.notes["asking"] == {"together": 6, "apart": 0}  # as those that it began from
    for module, pair in adapter.pairs.items():
        assert torch.equal(pair.up, same.pairs[module].up)
    assert "the mean of those with SHA-256" in (Path(facts["path"]) / "README.md").read_text()


def test_the_command_tunes_a_whole_model(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", WIDE)
    text = tmp_path / "text.txt"
    text.write_text(STORIES[0].text)
    run = str(tmp_path / "run")
    arguments = [str(text), "-m", str(model), "--out", run, "--full", "--rate", "1e-3"]
    _, err, code = run_nazx("tune", *arguments, "--steps", "3", "--batch-tokens", "200")
    assert code == 0, err
    ids = random_ids(30, seed=8)
    made = load_model(tmp_path / "run" / "model")
    assert (made.logits(ids) - load_model(model).logits(ids)).abs().max() > 1e-3
    assert made.tokenizer.encode("A king.") == load_model(model).tokenizer.encode("A king.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (["data.jsonl"], "needs a folder"),
        (["--out", "run"], "begins with files"),
        (["--resume", "--out", "run"], "holds no run"),
        (["data.jsonl", "--out", "run", "--export"], "nothing to export"),
        (["data.jsonl", "--out", "run", "--steps", "2", "--minutes", "2"], "both limit"),
        (["data.jsonl", "--out", "run", "--full", "--start", "x"], "which --start is for"),
        (["data.jsonl", "--out", "run", "--full", "--together", "6"], "which --together is for"),
    ),
)
def test_what_makes_no_sense_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    _, err, code = run_nazx("tune", *arguments)
    assert code == 2 and message in err


@pytest.mark.parametrize("command", (["tune"], ["tune", "--far", "inattention"], ["train"]))
def test_a_folder_that_cannot_be_is_told_before_anything_is_made_for_it(
    tmp_path: Path, command: list[str]
) -> None:
    model = write_checkpoint(tmp_path / "model", nazx(WIDE, WINDOWED))
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "run"
    base = ["-m", str(model)] if command[0] == "tune" else []
    _, err, code = run_nazx(*command, str(questions(tmp_path)), *base, "--out", str(out))
    assert code == 5 and err.splitlines()[-1] == (
        f"error: cannot write to {out}: Not a directory; next: "
        "name a folder that you may write to: with --out, or NAZX_HOME for what NazX keeps"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"model", "file", "questions.jsonl"}
