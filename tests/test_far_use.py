"""A far memory by InAttention: in its folder, by the commands, and judged."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_helpers import run_nazx
from far_models import (
    GRAM,
    RANK,
    base_model,
    far_tensors,
    ids_of,
    with_memory,
    write_memory,
)
from models import WINDOWED
from safetensors.torch import load_file, save_file

from nazx_cli import load_model
from nazx_cli.errors import ModelUnavailableError


def test_a_memory_is_taken_in_and_out_again_beside_the_same_weights(tmp_path: Path) -> None:
    far, rng = far_tensors(), random.Random(1)
    made = write_memory(tmp_path, far)
    lm, whole = load_model(base_model(tmp_path), adapter=made), load_model(tmp_path / "whole")
    ids = ids_of(rng, 30)
    assert torch.equal(lm.logits(ids), whole.logits(ids))
    assert lm.reads_resident
    assert lm.config.attention == whole.config.attention
    lm.attend_far(False)
    assert torch.equal(lm.logits(ids), load_model(tmp_path / "base").logits(ids))
    assert not lm.reads_resident
    lm.attend_far(True)
    assert torch.equal(lm.logits(ids), whole.logits(ids))


def test_a_memory_of_another_shape_or_for_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    made = write_memory(tmp_path, far_tensors())
    full = base_model(tmp_path / "full", {"kind": "full"})
    with pytest.raises(ModelUnavailableError, match="far does not fit this model"):
        load_model(full, adapter=made)
    save_file(
        {**load_file(made / "adapter_model.safetensors"), "far.null": torch.zeros(47)},
        made / "adapter_model.safetensors",
    )
    with pytest.raises(ModelUnavailableError, match=r"far\.null"):
        load_model(base_model(tmp_path), adapter=made)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"far": "infinite"}, "far"),
        ({"far": "none"}, "names no far memory"),
        ({"far_rank": 0}, "far_rank"),
        ({"far_window": "three"}, "far_window"),
        ({"far_rank": 10**9}, "far_rank"),
        ({"far_around": -1}, "far_around"),
        ({"far_around": 0}, "far.keys"),
    ],
)
def test_a_broken_config_is_told(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    made = write_memory(tmp_path, far_tensors(), **change)
    with pytest.raises(ModelUnavailableError, match=said):
        load_model(base_model(tmp_path), adapter=made)


def test_show_and_verify_know_what_it_is(tmp_path: Path) -> None:
    made = write_memory(tmp_path, far_tensors())
    facts = json.loads(run_nazx("show", str(made), "--json")[0])
    assert facts["kind"] == "adapter (far memory)"
    assert (facts["far"], facts["far_rank"], facts["far_window"]) == ("inattention", RANK, GRAM)
    assert facts["parameters"] == sum(tensor.numel() for tensor in far_tensors().values())
    assert run_nazx("verify", str(made))[2] == 0
    broken = {**load_file(made / "adapter_model.safetensors"), "far.bias": torch.tensor([math.nan])}
    save_file(broken, made / "adapter_model.safetensors")
    _, told, code = run_nazx("verify", str(made))
    assert code == 5
    assert "far.bias" in told


def test_ask_attends_to_a_whole_document_with_a_memory_and_refuses_without(tmp_path: Path) -> None:
    base = base_model(tmp_path, {**WINDOWED, "local_window": 600})
    made = write_memory(tmp_path, far_tensors())
    book = tmp_path / "book.txt"
    book.write_text("The goose laid an egg. " * 40)
    asked = ("ask", "-m", str(base), "--file", str(book), "--read", "resident", "--max-tokens", "4")
    _, told, code = run_nazx(*asked, "What?")
    assert code == 2
    assert "--read recall" in told
    said, told, code = run_nazx(*asked, "--adapter", str(made), "--json", "What?")
    assert code == 0, told
    assert json.loads(said)["stats"]["context_tokens"] > 40 * 5, said


def test_the_estimate_says_what_tokens_beyond_the_window_are_held_for(tmp_path: Path) -> None:
    base, made = base_model(tmp_path), write_memory(tmp_path, far_tensors())
    asked = ("vram-estimate", "-m", str(base), "--ctx", "5000")
    passages = "for passages to be brought into the window"
    assert f"are held as ids, {passages}" in run_nazx(*asked)[0]
    told = run_nazx(*asked, "--adapter", str(made))[0]
    assert f"are held as ids, for the far memory under --read resident, else {passages}" in told
    assert "state" not in told  # this kind keeps none


@pytest.mark.parametrize("kind", ("windowed", "inattention", "full"))
def test_logits_with_documents_before_are_those_of_a_context_that_has_them(
    tmp_path: Path, kind: str
) -> None:
    rng = random.Random(2)
    if kind == "windowed":
        lm = with_memory(tmp_path / "m", "llama", far_tensors())
    else:
        lm = load_model(base_model(tmp_path, {"kind": kind}))
    before, ids = ids_of(rng, 30), ids_of(rng, 13)
    rows, context = lm.logits(ids, before), lm.new_context()
    context.append(before, resident=True)
    for at, token in enumerate(ids):
        context.append([token])
        want = lm.next_logits(context).softmax(-1)
        assert (rows[at].softmax(-1) - want).abs().max() < 1e-5


def test_eval_sets_perplexity_with_a_memory_beside_none_and_anothers(tmp_path: Path) -> None:
    rng = random.Random(9)
    base = base_model(tmp_path, {**WINDOWED, "local_window": 64})
    made = write_memory(tmp_path, far_tensors())
    books = [tmp_path / f"{name}.txt" for name in "ab"]
    for book in books:
        book.write_text(" ".join("".join(rng.choices("abcd", k=3)) for _ in range(60)))
    ways = ("--before", "50", "--before-from", "none", "--before-from", "own")
    said, err, code = run_nazx(
        *("eval", *map(str, books), "--perplexity", "--ctx", "40", "--limit", "2", "--json"),
        *("-m", str(base), "--adapter", str(made), "--dtype", "float32"),
        *(*ways, "--before-from", "other"),
    )
    assert code == 0, err
    report = json.loads(said)
    lm = load_model(base, adapter=made)
    every = [lm.tokenizer.encode_document(book.read_text()).ids.tolist() for book in books]
    want: dict[str, list[float]] = {"nothing": [], "50 tokens": [], "50 of another": []}
    for text, ids in enumerate(every):
        for start in (50, 90):
            stretch = ids[start : start + 40]
            for name, before in (
                ("nothing", []),
                ("50 tokens", ids[start - 50 : start]),
                ("50 of another", every[1 - text][:50]),
            ):
                rows = lm.logits(stretch, before or None).log_softmax(-1)
                want[name] += [-float(rows[i, stretch[i + 1]]) for i in range(len(stretch) - 1)]
    means = {name: sum(losses) / len(losses) for name, losses in want.items()}
    for found, (name, mean) in zip(report["perplexity"], means.items(), strict=True):
        assert name in found["model"]
        (row,) = found["ranges"]
        assert row["mean"] == pytest.approx(math.exp(mean), rel=1e-3)
    for found, name in zip(
        report["perplexity_differences"], ("50 tokens", "50 of another"), strict=True
    ):
        assert found["mean"] == pytest.approx(means[name] - means["nothing"], abs=1e-3)
    _, err, code = run_nazx(
        *("eval", str(books[0]), "--perplexity", "--before", "9000", "-m", str(base))
    )
    assert code == 2
    assert "9,000" in err
    alone = ("eval", str(books[0]), "--perplexity", "--before", "50", "--before-from", "other")
    _, err, code = run_nazx(*alone, "-m", str(base))  # itself would be no other text
    assert code == 2 and "no other text has 50 tokens" in err


def test_eval_tells_names_that_only_the_memory_has_seen_apart(tmp_path: Path) -> None:
    rng = random.Random(4)
    base = base_model(tmp_path, {**WINDOWED, "local_window": 64})
    made = write_memory(tmp_path, far_tensors())
    words = rng.choices(["ab", "Cab", "Dac", "Ba", "ba", "C", "DA"], k=120)
    book = tmp_path / "a.txt"
    book.write_text(" ".join(words))
    said, err, code = run_nazx(
        *("eval", str(book), "--perplexity", "--before", "70", "--ctx", "40", "--limit", "4"),
        *("-m", str(base), "--adapter", str(made), "--dtype", "float32", "--json"),
        *("--before-from", "none", "--before-from", "own"),
    )
    assert code == 0, err
    lm = load_model(base, adapter=made)
    held = lm.tokenizer.encode_document(book.read_text())
    ids, ends = held.ids.tolist(), [*held.starts[1:].tolist(), len(book.read_text())]
    at, seen, wanted = 0, dict[str, int](), []
    for word in words:
        if word in ("Cab", "Dac"):  # "ba" is there too, and the others are no names
            inside = [i for i, end in enumerate(ends) if end > at and held.starts[i] < at + 3]
            wanted.append((inside, seen.get(word, -1)))
            seen[word] = inside[0]
        at += len(word) + 1
    losses: dict[str, list[float]] = {"nothing": [], "70 tokens": []}
    for start in range(70, 230, 40):
        stretch = ids[start : start + 40]
        mine = [
            i
            for inside, last in wanted
            if start - 70 <= last < start < inside[0] and inside[-1] < start + 40
            for i in inside
        ]
        for name, before in (("nothing", None), ("70 tokens", ids[start - 70 : start])):
            rows = lm.logits(stretch, before).log_softmax(-1)
            losses[name] += [-float(rows[i - start - 1, ids[i]]) for i in mine]
    report = json.loads(said)
    means = {name: sum(each) / len(each) for name, each in losses.items()}
    for found, (name, mean) in zip(report["perplexity"], means.items(), strict=True):
        (row,) = found["names"]
        assert (row["start"], row["tokens"]) == (0, len(losses[name]))
        assert row["mean"] == pytest.approx(math.exp(mean), rel=1e-3)
    (apart,) = report["name_differences"]
    assert apart["mean"] == pytest.approx(means["70 tokens"] - means["nothing"], abs=1e-3)
