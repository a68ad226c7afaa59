"""Teaching a compressive memory: its losses against serving, its gradients' reach, whole runs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import nazx, random_tensors, write_checkpoint
from cli_helpers import run_nazx
from models import BASES

from nazx_cli import load_model
from nazx_cli.config import ModelConfig
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.model.attention.windowed import Windowed
from nazx_cli.model.far.infini import FarInfini
from nazx_cli.training.far.compressing import OnRuns, of_those_before, runs
from nazx_cli.training.far.run import FarRun, prepare
from nazx_cli.training.far.settings import FarSettings
from nazx_cli.training.far.texts import Piece
from nazx_cli.training.trainer import Schedule

SEGMENT = 16
WIDE = {"kind": "windowed", "local_window": 64, "sink_tokens": 0, "far": "none"}
MEMORY = {"far": "infini", "far_rank": 2, "far_segment": SEGMENT, "far_update": "delta"}


def base_model(folder: Path) -> Path:
    config = nazx(BASES["llama"], {**WIDE, "local_window": 2048}, max_position_embeddings=4096)
    return write_checkpoint(folder / "base", config, random_tensors(config))


def random_memory(config: dict[str, Any]) -> FarInfini:
    torch.manual_seed(0)
    memory = FarInfini(ModelConfig.from_dict(config))
    for parameter in memory.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return memory


def beside(lm: LanguageModel, memory: FarInfini, ids: torch.Tensor, live: bool) -> OnRuns:
    assert isinstance(lm.attention, Windowed)
    return OnRuns(memory, lm.attention, [ids, ids.flip(0)], live)


def test_what_is_learnt_is_what_serves(tmp_path: Path) -> None:
    config = nazx(BASES["llama"], {**WIDE, **MEMORY})
    memory = random_memory(config)
    served = {f"far.{name}": tensor.clone() for name, tensor in memory.state_dict().items()}
    whole = write_checkpoint(tmp_path / "m", config, {**random_tensors(config), **served})
    lm, plain = load_model(whole), load_model(base_model(tmp_path))
    ids = torch.randint(20, 300, (7 * SEGMENT + 1,), dtype=torch.int32)
    engine = beside(plain, memory, ids, live=False)
    for other, source in ((None, ids[SEGMENT:]), (1, ids.flip(0))):
        item = Piece(0, 3 * SEGMENT, 3 * SEGMENT, 2 * SEGMENT, other)
        want = 0.0
        for number in range(3):  # segments learn from all that was read before them
            at = item.at + number * SEGMENT
            read = [source[: item.far], ids[item.at : at]]
            live, wanted = ids[at : at + SEGMENT], ids[at + 1 : at + SEGMENT + 1]
            rows = lm.logits(live, torch.cat(read))
            want += float(torch.nn.functional.cross_entropy(rows, wanted.long(), reduction="sum"))
        assert engine.loss(item, None) == pytest.approx(want, rel=1e-5)


def test_gradients_reach_what_was_stored_and_the_model_stays_as_it_is(tmp_path: Path) -> None:
    config = nazx(BASES["llama"], {**WIDE, **MEMORY})
    memory, lm = random_memory(config), load_model(base_model(tmp_path))
    ids = torch.randint(20, 300, (3 * SEGMENT + 1,), dtype=torch.int32)
    engine = beside(lm, memory, ids, live=False)
    engine.loss(Piece(0, 0, SEGMENT, 0), 1.0)  # the first segment finds nothing
    assert memory.value.grad is None or not memory.value.grad.any()
    engine.loss(Piece(0, 0, 2 * SEGMENT, 0), 1.0)
    assert memory.value.grad is not None
    assert memory.value.grad.any()
    assert all(parameter.grad is None for parameter in lm.decoder.parameters())


def test_the_control_knows_nothing_but_its_own_segment(tmp_path: Path) -> None:
    config = nazx(BASES["llama"], {**WIDE, **MEMORY})
    memory, lm = random_memory(config), load_model(base_model(tmp_path))
    ids = torch.randint(20, 300, (4 * SEGMENT + 1,), dtype=torch.int32)
    engine = beside(lm, memory, ids, live=True)
    item = Piece(0, 2 * SEGMENT, SEGMENT, 2 * SEGMENT)
    assert engine.loss(item, None) == engine.loss(Piece(0, item.at, item.count, 0), None)
    assert engine.loss(item, None) != pytest.approx(engine.plainly(item), rel=1e-3)


@pytest.mark.parametrize("count", (1, 2, 255, 256, 257, 700))
def test_what_stands_before_is_found_part_by_part_as_at_once(count: int) -> None:
    shared, group, size = 2, 3, 8
    q = torch.rand(shared, group * count, size, dtype=torch.float64)
    k, v = (torch.rand(shared, count, size, dtype=torch.float64) for _ in range(2))
    weights = (q @ k.transpose(1, 2)).view(shared, group, count, count).tril()
    want = (weights / weights.sum(-1, keepdim=True)).flatten(1, 2) @ v
    assert torch.allclose(of_those_before(q, k, v), want, rtol=1e-12)


def test_runs_cover_every_whole_segment_and_read_no_more_than_there_is() -> None:
    texts = [torch.zeros(count + 1) for count in (0, 15, 16, 16 * 9 + 3)]
    found = list(runs(texts, SEGMENT, random.Random(0)))
    covered = [(run.text, at) for run in found for at in range(run.at, run.at + run.count, SEGMENT)]
    assert covered == [(2, 0), *((3, SEGMENT * n) for n in range(9))]
    assert all(run.far <= run.at and run.far % SEGMENT == 0 for run in found)
    assert any(run.far for run in found)


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """Texts long enough to learn from."""
    rng, folder = random.Random(0), tmp_path / "books"
    folder.mkdir()
    for number in range(5):
        words = ["".join(rng.choices("abcdefgh", k=5)) for _ in range(40)]
        (folder / f"{number}.txt").write_text(" ".join(rng.choice(words) for _ in range(1_200)))
    return folder


def test_a_run_goes_on_to_the_same_memory(tmp_path: Path, books: Path) -> None:
    base = base_model(tmp_path)
    schedule = Schedule(steps=4, batch_tokens=256, check_every=100)
    asked = FarSettings(str(base), (str(books),), schedule, far="infini", rank=2, segment=64)
    lm = load_model(base, adapter="none")
    made = {}
    for name, stops in (("whole", (4,)), ("stopped", (1, 3))):
        settings = prepare(tmp_path / name, asked, lm)
        for steps in stops:
            run = FarRun(tmp_path / name, settings, lm)
            begun = [parameter.detach().clone() for parameter in run.trainer.engine.parameters]
            for _ in range(steps):
                run.trainer.step()
            run.trainer.save()
        made[name] = [parameter.detach() for parameter in run.trainer.engine.parameters]
    for one, other, before in zip(made["whole"], made["stopped"], begun, strict=True):
        assert torch.equal(one, other)
        assert not torch.equal(other, before)


def test_gates_have_a_pace_of_their_own(tmp_path: Path, books: Path) -> None:
    base = base_model(tmp_path)
    schedule = Schedule(steps=10, batch_tokens=256, rate=1e-3, warmup=0.0, decay=0.5)
    asked = FarSettings(str(base), (str(books),), schedule, far="infini", rank=2, segment=64)
    lm = load_model(base, adapter="none")
    prepare(tmp_path / "run", asked, lm)
    run = FarRun(tmp_path / "run", asked, lm)
    gates = run.trainer.engine.parameters[0]
    begun = gates.detach().clone()
    run.trainer.step()
    moved = (gates - begun).abs()
    assert torch.allclose(moved, torch.full_like(moved, 30e-3), rtol=0.02)  # and does not decay


def test_tune_makes_a_memory_that_ask_attends_with(tmp_path: Path, books: Path) -> None:
    base = base_model(tmp_path)
    command = (
        *("tune", str(books), "--far", "infini", "--far-update", "delta", "--far-rank", "2"),
        *("--far-segment", "64", "-m", str(base), "--steps", "3", "--batch-tokens", "256"),
        *("--held-share", "2", "--dtype", "float32"),
    )
    said, err, code = run_nazx(*command, "--out", str(tmp_path / "run"), "--json")
    assert code == 0, err
    held = json.loads(said)["held_out"]
    assert abs(held["own"] - held["without"]) < 0.1  # as good as nothing was learnt yet
    made = tmp_path / "run" / "adapter"
    card = (made / "README.md").read_text()
    assert "update delta" in card
    assert "segments of 64 tokens" in card
    assert f"{held['own']:.4f}" in card
    config = json.loads((made / "adapter_config.json").read_text())
    assert (config["far_update"], config["far_segment"], config["far_rank"]) == ("delta", 64, 2)
    asked = ("ask", "-m", str(base), "--adapter", str(made), "--read", "resident")
    said, err, code = run_nazx(
        *asked, "--file", str(books / "0.txt"), "--max-tokens", "3", "--json", "What?"
    )
    assert code == 0, err
    said, err, code = run_nazx(
        *command, "--far-control", "--out", str(tmp_path / "control"), "--json"
    )
    assert code == 0, err
    control = json.loads(said)["held_out"]
    assert control["own"] == control["other"]
