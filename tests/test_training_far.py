"""Teaching a far memory: its loss against the formula and against serving, and whole runs."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from checkpoints import nazx, random_tensors, write_checkpoint
from cli_helpers import run_nazx
from models import BASES

from nazx_cli import load_model
from nazx_cli.checkpoint.adapters.far import read_far_adapter
from nazx_cli.config import ModelConfig
from nazx_cli.model.far.inattention import FarInAttention
from nazx_cli.training.far import texts
from nazx_cli.training.far.copying import OnPieces
from nazx_cli.training.far.mixture import mixture_loss
from nazx_cli.training.far.run import FarRun
from nazx_cli.training.far.settings import read_settings
from nazx_cli.training.far.texts import Piece, Text, collect, pieces

WIDE = {"kind": "windowed", "local_window": 64, "sink_tokens": 0, "far": "none"}


@pytest.mark.parametrize(("rows", "keys"), [(1, 0), (1, 1), (3, 7), (5, 64)])
def test_the_loss_and_its_gradients_are_those_of_the_formula(rows: int, keys: int) -> None:
    torch.manual_seed(keys)
    q, k = torch.randn(rows, 6, dtype=torch.float64), torch.randn(keys, 6, dtype=torch.float64)
    refusal = torch.randn(rows, dtype=torch.float64)
    own = -torch.rand(rows, dtype=torch.float64) * 9
    right = torch.rand(rows, keys) < 0.3
    seen = torch.randint(0, keys + 1, (rows,))
    inputs = [each.requires_grad_() for each in (q, k, refusal)]
    weights = torch.rand(rows, dtype=torch.float64)
    got = mixture_loss(q, k, refusal, own, right, seen)
    grads = torch.autograd.grad((got * weights).sum(), inputs, retain_graph=True)
    scores = (q @ k.t()).exp() * (torch.arange(keys) < seen[:, None])
    total = scores.sum(1) + refusal.exp()
    likely = (scores * right).sum(1) + refusal.exp() * own.exp()
    want = total.log() - likely.log()
    assert torch.allclose(got, want, atol=1e-12)
    for mine, theirs in zip(
        grads, torch.autograd.grad((want * weights).sum(), inputs), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_what_is_learnt_is_what_serves(tmp_path: Path) -> None:
    """Losses of training against the log-probabilities that a context of the same text gives."""
    torch.manual_seed(0)
    sizes = {"far": "inattention", "far_rank": 4, "far_window": 3, "far_around": 5}
    config = nazx(BASES["llama"], {**WIDE, **sizes})
    memory = FarInAttention(ModelConfig.from_dict(config))
    for parameter in memory.parameters():
        torch.nn.init.normal_(parameter)
    with torch.no_grad():
        memory.keys[-1] /= 9  # nothing that is around is all there is
    served = {f"far.{name}": tensor.clone() for name, tensor in memory.state_dict().items()}
    for name in ("far.state", "far.null"):
        served[name] /= config["hidden_size"] ** 0.5
    write_checkpoint(tmp_path / "m", config, {**random_tensors(config), **served})
    lm = load_model(tmp_path / "m")
    ids = torch.randint(20, 30, (71,), dtype=torch.int32)
    text = texts._run(lm, ids, 40, 16)
    stretch = Text(text["ids"], text["states"], text["own"], int(text["window"]))
    embedding = lm.decoder.embed(torch.arange(300))
    engine = OnPieces(memory, embedding, [stretch], live=False)
    got = engine.losses(Piece(0, 16, 9, 100)).detach()
    context = lm.new_context()
    context.append(ids[:56], resident=True)
    for at in range(9):
        context.append(ids[56 + at : 57 + at])
        want = -lm.next_logits(context).log_softmax(-1)[int(ids[57 + at])]
        assert abs(float(got[at] - want)) < 0.1  # states are kept in bfloat16


def test_pieces_cover_every_text_and_stay_within_blocks() -> None:
    made = [
        Text(torch.zeros(100 + n + 1, dtype=torch.int32), torch.zeros(n, 4), torch.zeros(n), window)
        for n, window in ((700, 512), (1, 512), (256, 1024), (513, 512))
    ]
    found = list(pieces(made, random.Random(0), passes=2, strange=0.5))
    for number, text in enumerate(made):
        mine = [piece for piece in found if piece.text == number]
        covered = [at for piece in mine for at in range(piece.at, piece.at + piece.count)]
        assert sorted(covered) == sorted(2 * list(range(len(text.own))))
        for piece in mine:
            assert piece.at // text.window == (piece.at + piece.count - 1) // text.window
            assert piece.other != number
    assert any(piece.other is not None for piece in found)


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Texts that say the same things again and again."""
    rng = random.Random(0)
    folder = tmp_path / "books"
    folder.mkdir()
    for number in range(7):
        names = ["".join(rng.choices("abcdefgh", k=5)) for _ in range(40)]
        said = " ".join(rng.choice(names) for _ in range(2_500))
        (folder / f"{number}.txt").write_text(said)
    return folder


def command(books: Path, base: Path, out: Path, steps: int) -> list[str]:
    return [
        *("tune", str(books), "--far", "inattention", "-m", str(base), "--out", str(out)),
        *("--steps", str(steps), "--batch-tokens", "256", "--rate", "1e-2", "--held-share", "2"),
        *("--dtype", "float32", "--far-rank", "8", "--far-window", "3", "--check-every", "20"),
    ]


def base_model(folder: Path) -> Path:
    config = nazx(BASES["llama"], {**WIDE, "local_window": 2048}, max_position_embeddings=4096)
    return write_checkpoint(folder / "base", config, random_tensors(config))


def test_a_memory_learns_to_copy_and_says_what_it_is_worth(
    tmp_path: Path, books: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "STRETCH", 1024)
    base = base_model(tmp_path)
    said, err, code = run_nazx(*command(books, base, tmp_path / "run", 40), "--json")
    assert code == 0, err
    held = json.loads(said)["held_out"]
    assert held["own"] < held["without"] - 0.5
    assert held["own"] < held["other"]
    again, _, _ = run_nazx(*command(books, base, tmp_path / "again", 40), "--json")
    assert json.loads(again)["held_out"] == held
    adapter = read_far_adapter(tmp_path / "run" / "adapter")
    assert adapter.config["far_rank"] == 8
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert f"{held['own']:.4f}" in card
    lm = load_model(base, adapter=tmp_path / "run" / "adapter")
    assert lm.reads_resident
    run = FarRun(tmp_path / "run", read_settings(tmp_path / "run"), load_model(base))
    seen: list[tuple[int, int]] = []
    _, figures = run.export(lambda done, of: seen.append((done, of)))
    assert figures == held
    (begun, every), *later = seen
    pieces_held = every // len(held)
    assert begun == 0
    assert later == [(done, every) for done in range(pieces_held + 1, every + 1)]
    _, err, code = run_nazx(*command(books, base, tmp_path / "run", 40))
    assert code == 2
    assert "--resume" in err


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_memory(tmp_path: Path, books: Path) -> None:
    base = base_model(tmp_path)
    small = "import nazx_cli.training.far.texts as t; t.STRETCH = 512; "
    begin = small + "from nazx_cli.cli.app import main; main()"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def nazx_command(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", begin, *arguments], text=True, env=env, stderr=subprocess.PIPE
        )

    whole = nazx_command(*command(books, base, tmp_path / "whole", 30))
    assert whole.wait(120) == 0, whole.stderr and whole.stderr.read()
    killed = nazx_command(*command(books, base, tmp_path / "killed", 30))
    log = tmp_path / "killed" / "log.jsonl"
    while killed.poll() is None and not (log.is_file() and log.stat().st_size > 200):
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    resumed = nazx_command("tune", "--resume", "--out", str(tmp_path / "killed"))
    assert resumed.wait(120) == 0, resumed.stderr and resumed.stderr.read()
    files = [
        tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("whole", "killed")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_texts_of_another_beginning_are_taken_away(tmp_path: Path, books: Path) -> None:
    lm = load_model(base_model(tmp_path), dtype="float32")
    folder, made = tmp_path / "texts", list[int]()

    def kept(ids: torch.Tensor, number: int) -> dict[str, torch.Tensor]:
        made.append(len(ids))
        return {"ids": ids}

    def collected(share: int, *sources: Path) -> tuple[set[str], int]:
        made.clear()
        collect(lm, [str(each) for each in sources], folder, share, kept)
        return {path.name for path in folder.iterdir()}, len(made)

    first, count = collected(0, books)
    assert len(first) == count == 7
    assert collected(0, books) == (first, 0)
    other, _ = collected(2, books)
    assert len(other) == 7 and any(name.startswith("held") for name in other)
    fewer, _ = collected(2, books / "0.txt", books / "1.txt")
    assert len(fewer) == 2 and fewer < other
    lm.decoder.final_norm.weight = torch.nn.Parameter(lm.decoder.final_norm.weight + 1)
    assert collected(2, books / "0.txt", books / "1.txt")[1] == 2


def test_short_texts_and_models_without_a_window_are_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("too short")
    base = base_model(tmp_path)
    _, err, code = run_nazx(*command(tmp_path / "short.txt", base, tmp_path / "run", 3))
    assert code == 2
    assert "long enough" in err
    config = nazx(BASES["llama"], {"kind": "full"})
    full = write_checkpoint(tmp_path / "full", config, random_tensors(config))
    _, err, code = run_nazx(*command(tmp_path / "short.txt", full, tmp_path / "run", 3))
    assert code == 2
    assert "window" in err
