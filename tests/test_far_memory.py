"""A far memory by InAttention against the formula, over edits and drafts."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from checkpoints import nazx, random_tensors, write_checkpoint
from far_models import (
    AROUND,
    FAR,
    GRAM,
    LOCAL,
    far_tensors,
    ids_of,
    with_memory,
)
from models import BASES, WINDOWED
from reference import Reference
from torch import Tensor

from nazx_cli import load_model
from nazx_cli.model.far import inattention


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
