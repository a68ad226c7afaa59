"""``nazx train``: the corpus, whole runs through the command line, runs that are killed, and
several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_helpers import run_nazx
from safetensors.torch import load_file

from nazx_cli import load_model
from nazx_cli.config import ModelConfig
from nazx_cli.errors import UsageError
from nazx_cli.tokenizer import Tokenizer
from nazx_cli.training.scratch.corpus import (
    END,
    HELD,
    TRAIN,
    Stretches,
    make_corpus,
    read_ids,
    read_notes,
)
from nazx_cli.training.scratch.initial import Shape, new_decoder, parse_attention, spelled
from nazx_cli.training.state import STATE_FILE, read_log

ALICE = Path(__file__).parent / "data" / "alice.txt"
SMALL = ["--layers", "2", "--width", "32", "--context", "48", "--vocab", "400"]
FEW = ["--steps", "12", "--batch-tokens", "900", "--check-every", "4", "--rate", "0.01"]
COMMAND = (sys.executable, "-m", "nazx_cli", "train")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sixty short texts, with a licence beside them."""
    folder = tmp_path_factory.mktemp("texts")
    text = ALICE.read_text(encoding="utf-8")[:60_000]
    pieces = [text[at : at + 1000].strip() for at in range(0, len(text), 1000)]
    for number, piece in enumerate(pieces[:30]):
        (folder / f"{number}.txt").write_text(piece)
    (folder / "many.txt").write_text(f"\n{END}\n".join(pieces[30:]))
    (folder / "LICENSE.txt").write_text("Public domain\nand more")
    return folder


def test_a_corpus_is_all_the_text_each_document_on_one_side(texts: Path, tmp_path: Path) -> None:
    make_corpus(tmp_path / "corpus", [str(texts)], vocab_size=400, held_share=6)
    reader = Tokenizer.from_folder(tmp_path / "corpus")
    (end,) = reader.special_ids.values()
    found: dict[str, list[str]] = {}
    for name in (TRAIN, HELD):
        ids = read_ids(tmp_path / "corpus", name)
        assert ids[-1] == end
        cuts = np.flatnonzero(ids == end)
        starts = [0, *(cuts[:-1] + 1)]
        found[name] = [
            reader.decode(ids[start:stop].tolist())
            for start, stop in zip(starts, cuts, strict=True)
        ]
    whole = [path.read_text() for path in texts.glob("[0-9]*.txt")]
    whole += [part.strip() for part in (texts / "many.txt").read_text().split(END)]
    assert sorted(found[TRAIN] + found[HELD]) == sorted(whole)
    assert 2 <= len(found[HELD]) <= 25
    (note,) = read_notes(tmp_path / "corpus")
    assert note.files == 31 and note.licence == "Public domain"
    make_corpus(tmp_path / "again", [str(texts)], vocab_size=400, held_share=6)
    assert np.array_equal(read_ids(tmp_path / "again", HELD), read_ids(tmp_path / "corpus", HELD))


def test_of_a_long_document_the_end_is_held_out(tmp_path: Path) -> None:
    text = ALICE.read_text(encoding="utf-8")
    make_corpus(tmp_path / "corpus", [str(ALICE)], vocab_size=400, held_share=10)
    reader = Tokenizer.from_folder(tmp_path / "corpus")
    held = reader.decode(read_ids(tmp_path / "corpus", HELD).tolist()).strip()
    assert text.strip().endswith(held) and 0.08 < len(held) / len(text) < 0.12
    assert (tmp_path / "corpus" / "held.txt").read_text().strip() == held


@pytest.mark.parametrize("text", ["Title\n" + "word " * 40_000, "x" * 110_000])
def test_the_end_is_held_out_of_a_document_without_lines(text: str, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(text)
    make_corpus(tmp_path / "corpus", [str(tmp_path / "long.txt")], vocab_size=300, held_share=10)
    held = (tmp_path / "corpus" / "held.txt").read_text()
    assert 0.09 < len(held) / len(text) < 0.16


@pytest.mark.parametrize(
    ("count", "length", "batch"), ((1, 4, 2), (9, 4, 2), (41, 4, 3), (40, 5, 1))
)
def test_stretches_cover_the_corpus_once(count: int, length: int, batch: int) -> None:
    ids = np.arange(count, dtype=np.int32)
    stretches = Stretches(ids, length, batch)
    rows = [row.tolist() for item in stretches for row in item.ids]
    assert all(row == list(range(row[0], row[0] + length + 1)) for row in rows)
    starts = sorted(row[0] for row in rows)
    assert starts == [length * n for n in range(len(starts))]
    possible = (count - 1) // length
    assert possible - min(batch, max(possible, 1)) < len(starts) <= possible


def test_models_of_a_series_differ_in_nothing_but_attention() -> None:
    shape = Shape(2, 64, 32, 300)
    sizes = {}
    for kind in ("inattention", "inattention:3", "windowed:8:2", "full"):
        config = ModelConfig.from_dict(shape.config(parse_attention(kind)))
        decoder, again = new_decoder(config, 5), new_decoder(config, 5)
        for mine, theirs in zip(decoder.parameters(), again.parameters(), strict=True):
            assert torch.equal(mine, theirs)
        assert sum(p.numel() for p in decoder.parameters()) == config.num_parameters
        sizes[kind] = config.num_parameters
    assert sizes["inattention"] == sizes["windowed:8:2"] == sizes["full"]
    assert sizes["inattention:3"] - sizes["full"] == 3 * 64


@pytest.mark.parametrize(
    "text", ("inattention", "inattention:3", "windowed:8:2", "windowed:128:0", "full")
)
def test_an_attention_is_spelled_as_it_is_read(text: str) -> None:
    assert spelled(parse_attention(text)) == text


@pytest.mark.parametrize(
    "text", ("", "fulll", "full:2", "inattention:x", "windowed:1:2:3", "windowed:-1")
)
def test_an_attention_that_is_none_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="no attention"):
        parse_attention(text)


def test_a_series_is_trained_compared_and_used(texts: Path, tmp_path: Path) -> None:
    kinds = ["--attention", "inattention:2", "--attention", "windowed:8:2", "--attention", "full"]
    out, err, code = run_nazx(
        "train", str(texts), *kinds, *SMALL, *FEW, "--out", str(tmp_path / "run"), "--json"
    )
    assert code == 0, err
    facts = json.loads(out)
    assert list(facts["models"]) == ["inattention-2", "windowed-8-2", "full"]
    for name, made in facts["models"].items():
        log = read_log(tmp_path / "run" / name)
        held = [line["held_out"] for line in log if "held_out" in line]
        assert len(held) == 3 and held[-1] < held[0] < np.log(400)
        assert made["held_out"] == pytest.approx(min(held), abs=1e-4)
        assert facts["positions"][name][0]["tokens"] > 500
        card = (Path(made["path"]) / "README.md").read_text()
        assert "Public domain" in card and "12 steps" in card
        assert "<polyline" in (Path(made["path"]) / "loss.svg").read_text()
        _, err, code = run_nazx("verify", made["path"])
        assert code == 0, err
        lm = load_model(made["path"])
        context = lm.new_context()
        context.append(lm.tokenizer.encode("Alice was"))
        assert lm.next_logits(context).shape == (400,)
    _, err, code = run_nazx("train", str(texts), "--out", str(tmp_path / "run"))
    assert code == 2 and "--resume" in err
    start = facts["models"]["full"]["path"]
    config = json.loads((Path(start) / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 5e5}
    (Path(start) / "config.json").write_text(json.dumps(config))
    longer = ["--start", start, "--context", "96", "--rope", "linear", "--steps", "2"]
    out, err, code = run_nazx("train", str(texts), *longer, "--out", str(tmp_path / "on"), "--json")
    assert code == 0, err
    (model,) = json.loads(out)["models"].items()
    assert model[0] == "full"
    made = load_model(model[1]["path"])
    assert made.config.max_positions == 96 and made.config.rope.kind == "linear"
    assert made.config.rope.theta == 5e5
    assert made.config.rope.factor == 2.0 and made.config.attention.kind == "full"


@pytest.mark.parametrize(
    ("arguments", "said"),
    (
        (["--out", "run"], "begins with files"),
        (["FILE"], "needs a folder"),
        (["FILE", "--resume", "--out", "run"], "begins with files"),
        (["--resume", "--out", "run"], "holds no run"),
        (["FILE", "--out", "run", "--rope", "yarn"], "--start"),
        (["FILE", "--out", "run", "--start", "none"], "is no model"),
        (["FILE", "--out", "run", "--start", "none", "--rope", "dynamic"], "not one of"),
        (["FILE", "--out", "run", "--steps", "1", "--minutes", "1"], "both limit"),
        (["FILE", "--out", "run", "--attention", "ring"], "no attention"),
        (["FILE", "--out", "run", "--context", "5000000"], "too little text"),
    ),
)
def test_what_cannot_be_trained_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "text.txt"
    file.write_text("Once there was a hen.\n" * 8000)
    out, err, code = run_nazx("train", *(str(file) if a == "FILE" else a for a in arguments))
    assert code == 2 and said in err and not out


USUAL = [*SMALL, *FEW, "--dtype", "float32", "--steps", "30", "--quiet"]


@pytest.fixture(scope="module")
def whole(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training that nothing interrupts comes to."""
    out = tmp_path_factory.mktemp("whole") / "run"
    _, err, code = run_nazx("train", str(texts), *USUAL, "--out", str(out))
    assert code == 0, err
    return out / "inattention"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGTERM")
def test_a_training_that_is_told_to_end_saves_and_goes_on_to_the_same_weights(
    texts: Path, tmp_path: Path, whole: Path
) -> None:
    told = [each for each in USUAL if each != "--quiet"]
    process = subprocess.Popen(
        [*COMMAND, str(texts), *told, "--out", str(tmp_path / "run")],
        stderr=subprocess.PIPE,
        text=True,
    )
    cut, patience = tmp_path / "run" / "inattention", time.monotonic() + 240
    while len(read_log(cut)) < 12 and time.monotonic() < patience and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 143
    assert said.endswith(f"stopped; go on with: nazx train --resume --out {tmp_path / 'run'}\n")
    assert len(read_log(cut)) < 37
    raw = load_file(cut / STATE_FILE)["counters"].to(torch.uint8).tolist()
    assert json.loads(bytes(raw))["step"] == read_log(cut)[-1]["step"]
    _, err, code = run_nazx("train", "--resume", "--out", str(tmp_path / "run"))
    assert code == 0, err
    timeless = [[{**line, "seconds": 0} for line in read_log(folder)] for folder in (cut, whole)]
    assert timeless[0] == timeless[1] and len(timeless[0]) == 38
    weights = [(f / "model" / "model.safetensors").read_bytes() for f in (cut, whole)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_two_processes_train_what_one_trains(texts: Path, tmp_path: Path, whole: Path) -> None:
    both = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    both += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    done = subprocess.run(
        [*both, "-m", "nazx_cli", "train", str(texts), *USUAL, "--out", str(tmp_path / "run")],
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("30 steps") == 1
    one, two = (
        [line.get("loss", line.get("held_out")) for line in read_log(folder)]
        for folder in (whole, tmp_path / "run" / "inattention")
    )
    assert two == pytest.approx(one, rel=2e-3)
