"""A far memory by InAttention: against the formula, over edits, in its folder and in use."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import nazx, random_tensors, write_checkpoint
from cli_helpers import run_nazx
from models import BASES, WINDOWED
from reference import Reference
from safetensors.torch import load_file, save_file
from torch import Tensor

from nazx_cli import load_model
from nazx_cli.checkpoint.adapters.far import write_far_adapter
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.model.far import inattention

RANK, GRAM, LOCAL, AROUND = 5, 3, 8, 4
FAR = {**WINDOWED, "far": "inattention", "far_rank": RANK, "far_window": GRAM, "far_around": AROUND}


def far_tensors(seed: int = 0, around: bool = True) -> dict[str, Tensor]:
    """A memory whose scores are large enough to change which token is likeliest."""
    generator = torch.Generator().manual_seed(seed)
    shape = (GRAM + around, RANK, 48)
    made = {f"far.{name}": torch.randn(shape, generator=generator) for name in ("keys", "queries")}
    made["far.state"] = 0.5 * torch.randn(shape, generator=generator)
    made["far.null"] = 0.3 * torch.randn(48, generator=generator)
    made["far.bias"] = torch.tensor([5.0, 0.4])
    if around:
        made["far.keys"][-1] /= 4
    return made


class Oracle:
    """Position by position and far position by far position, in float64."""

    def __init__(self, base: str, far: dict[str, Tensor], around: int = AROUND) -> None:
        self.around = around
        config = nazx(BASES[base], WINDOWED)
        self.reference = Reference(config, random_tensors(config))
        self.far = {name: tensor.double() for name, tensor in far.items()}

    def _unit(self, x: Tensor) -> Tensor:
        return x / (x.pow(2).mean() + torch.finfo(torch.float32).eps).sqrt()

    def _embedded(self, token: int) -> Tensor:
        return self._unit(self.reference.embed[token])

    def row(self, live: list[int], far: list[int]) -> Tensor:
        """(V,) probabilities of what follows ``live``, which a memory of ``far`` stands before."""
        keys, queries, state = (self.far[f"far.{name}"] for name in ("keys", "queries", "state"))
        h = self._unit(self.reference.final(live)[-1])
        base, growth = self.far["far.bias"].tolist()
        refusal = float(self.far["far.null"] @ h) + base + growth * math.log(max(1, len(far)))
        weights: list[tuple[float, int | None]] = [(math.exp(refusal), None)]
        spoken = queries[-1] @ sum(self._embedded(token) for token in live[-64:]) / (8 * 48**0.5)
        for p in range(len(far) - 1):
            score = 0.0
            for back in range(GRAM):
                if p - back < 0:
                    continue
                k = keys[back] @ self._embedded(far[p - back])
                q = state[back] @ h
                if len(live) > back:
                    q = q + queries[back] @ self._embedded(live[-1 - back])
                score += float(q @ k / k.norm())
            if self.around:
                near = far[max(0, p - self.around) : p + self.around + 1]
                k = keys[-1] @ sum(self._embedded(token) for token in near)
                score += float((spoken + state[-1] @ h) @ k) / math.sqrt(2 * self.around + 1)
            weights.append((math.exp(score), far[p + 1]))
        total = sum(weight for weight, _ in weights)
        out: Tensor = self.reference.logits(live)[-1].softmax(-1) * (weights[0][0] / total)
        for weight, token in weights[1:]:
            out[token] += weight / total
        return out


def with_memory(folder: Path, base: str, far: dict[str, Tensor], **load: Any) -> LanguageModel:
    config = nazx(BASES[base], FAR)
    write_checkpoint(folder, config, {**random_tensors(config), **far})
    return load_model(folder, **load)


def ids_of(rng: random.Random, count: int) -> list[int]:
    """Few different tokens, so that there is something to copy."""
    return [rng.randrange(20, 32) for _ in range(count)]


def error(got: Tensor, want: Tensor) -> float:
    return float((got.double().softmax(-1) - want).abs().max())


@pytest.mark.parametrize("base", ("llama", "neox-sequential"))
@pytest.mark.parametrize("count", (0, 1, 2, 3, 30, 31))
def test_what_is_resident_changes_what_follows_as_the_formula_says(
    tmp_path: Path, base: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inattention, "BLOCK", 7)  # several blocks, the last one not full
    rng, far = random.Random(count), far_tensors()
    lm, oracle = with_memory(tmp_path / "m", base, far), Oracle(base, far)
    resident, live = ids_of(rng, count), ids_of(rng, 5)
    context = lm.new_context()
    context.append(resident, resident=True)
    for at in range(1, len(live) + 1):
        context.append(live[at - 1 : at])
        assert error(lm.next_logits(context), oracle.row(live[:at], resident)) < 2e-5
    if count > 10:
        plain = oracle.reference.logits(live)[-1].softmax(-1)
        assert (plain - oracle.row(live, resident)).abs().max() > 1e-2


def test_a_memory_may_know_nothing_of_what_is_around(tmp_path: Path) -> None:
    rng, far = random.Random(6), far_tensors(around=False)
    folder, config = tmp_path / "m", nazx(BASES["llama"], {**FAR, "far_around": 0})
    lm = load_model(write_checkpoint(folder, config, {**random_tensors(config), **far}))
    resident, live = ids_of(rng, 30), ids_of(rng, 5)
    context = lm.new_context()
    context.append(resident, resident=True)
    context.append(live)
    want = Oracle("llama", far, around=0).row(live, resident)
    assert error(lm.next_logits(context), want) < 2e-5


@pytest.mark.parametrize("native", (True, False))
def test_edits_need_nothing_and_what_the_window_leaves_behind_is_remembered(
    tmp_path: Path, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setenv("NAZX_NATIVE", "0")
    rng, far = random.Random(7), far_tensors()
    lm, oracle = with_memory(tmp_path / "m", "llama", far), Oracle("llama", far)
    resident, live = ids_of(rng, 25), ids_of(rng, 4)
    context = lm.new_context()
    context.append(resident, resident=True)
    context.append(live)
    for turn in range(12):
        at = rng.randrange(len(resident) + 1)
        if turn % 2:
            stop = min(len(resident), at + rng.randrange(5))
            context.delete(at, stop)
            del resident[at:stop]
        else:
            new = ids_of(rng, rng.randrange(4))
            context.insert(at, new, resident=True)
            resident[at:at] = new
        new = ids_of(rng, rng.choice((0, 1, 3)))
        context.append(new)
        live += new
        behind = live[: max(0, len(live) - LOCAL)]
        assert error(lm.next_logits(context), oracle.row(live, resident + behind)) < 2e-5
    held = lm.new_context()
    held.append(live)
    context.insert(0, ids_of(rng, 9_000), resident=True)
    lm.next_logits(held), lm.next_logits(context)
    assert context.nbytes - held.nbytes <= 4 * (9_000 + len(resident) + 1_024)


def test_logits_of_a_sequence_are_those_of_a_context_that_grows(tmp_path: Path) -> None:
    rng, far = random.Random(3), far_tensors()
    lm, oracle = with_memory(tmp_path / "m", "neox-sequential", far), Oracle("neox-sequential", far)
    ids = ids_of(rng, 21)
    rows = lm.logits(ids)
    for at in range(len(ids)):
        behind = ids[: max(0, at + 1 - LOCAL)]
        assert error(rows[at], oracle.row(ids[: at + 1], behind)) < 2e-5


def test_drafts_change_no_bit(tmp_path: Path) -> None:
    rng = random.Random(5)
    lm = with_memory(tmp_path / "m", "llama", far_tensors(), dtype="bfloat16")
    context, plain = lm.new_context(), lm.new_context()
    resident, live = ids_of(rng, 40), ids_of(rng, 6)
    for each in (context, plain):
        each.append(resident, resident=True)
        each.append(live)
        lm.next_logits(each)
        each.append([live[0]])
    drafts = ids_of(rng, 6)
    for at, row in enumerate(lm.logits_ahead(context, drafts)):
        assert torch.equal(row, lm.next_logits(plain))
        plain.append(drafts[at : at + 1])


# As an adapter


def write_memory(folder: Path, tensors: dict[str, Tensor], **changes: Any) -> Path:
    """The folder of a memory, as training writes it."""
    config = nazx(BASES["llama"], FAR)
    weights = {**random_tensors(config), **tensors}
    lm = load_model(write_checkpoint(folder / "whole", config, weights))
    memory = lm.decoder.far
    assert memory is not None
    write_far_adapter(
        folder / "far",
        lm.config.attention,
        memory,
        base="tiny",
        notes={"base": "tiny"},
        card="# Card\n",
        dtype=torch.float32,
    )
    if changes:
        path = folder / "far" / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder / "far"


def base_model(folder: Path, attention: dict[str, Any] = WINDOWED) -> Path:
    config = nazx(BASES["llama"], attention)
    return write_checkpoint(folder / "base", config, random_tensors(config))


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
