"""Losses of whole sequences for training: those of the model's own attention code, and their
gradients, also where they are computed once more in blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import nazx, write_checkpoint
from models import ATTENTION, BASES, random_ids
from torch.nn import functional as F

import nazx_cli.training.gradients.sequences as sequences
from nazx_cli import load_model
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.training.gradients.sequences import final_states, loss_sum


def fresh(folder: Path, base: str, kind: str) -> LanguageModel:
    """A model of its own, whose parameters ask for gradients."""
    write_checkpoint(folder, nazx(BASES[base], ATTENTION[kind]))
    lm = load_model(folder, dtype="float32")
    for parameter in lm.decoder.parameters():
        parameter.requires_grad_(True)
    return lm


def own_loss(lm: LanguageModel, rows: list[list[int]]) -> torch.Tensor:
    """The sum of losses by the attention kind that serves, row by row."""
    total = torch.zeros(())
    for row in rows:
        logits = lm.decoder.logits(lm.attention.sequence(torch.tensor(row[:-1])))
        total = total + F.cross_entropy(logits, torch.tensor(row[1:]), reduction="sum")
    return total


@pytest.mark.parametrize("recompute", (False, True))
@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.parametrize("base", BASES)
def test_losses_and_gradients_are_those_of_the_code_that_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str, kind: str, recompute: bool
) -> None:
    monkeypatch.setattr(sequences, "_ROWS", 5)  # several blocks, the last one odd
    monkeypatch.setattr(sequences, "_LOSSES", 7)
    lm = fresh(tmp_path / "model", base, kind)
    parameters = list(dict.fromkeys(lm.decoder.parameters()))
    for batch, length in ((1, 2), (3, 8), (2, 12), (2, 33)):
        rows = [random_ids(length, seed=10 * batch + n) for n in range(batch)]
        want = own_loss(lm, rows)
        expected = torch.autograd.grad(want, parameters, allow_unused=True)
        got = loss_sum(lm.decoder, torch.tensor(rows), recompute)
        assert float(got) == pytest.approx(float(want), rel=1e-5)
        for mine, theirs in zip(
            torch.autograd.grad(got, parameters, allow_unused=True), expected, strict=True
        ):
            assert (mine is None) == (theirs is None)
            if mine is not None and theirs is not None:
                assert (mine - theirs).norm() <= 1e-4 * theirs.norm() + 1e-6


def test_positions_do_not_see_what_follows(tmp_path: Path) -> None:
    lm = fresh(tmp_path / "model", "neox-sequential", "convolved")
    first, other = random_ids(20, seed=1), random_ids(20, seed=2)
    joined = torch.tensor([first, first[:10] + other[10:]])
    with torch.no_grad():
        states = final_states(lm.decoder, joined).view(2, 20, -1)
    assert torch.allclose(states[0, :10], states[1, :10], atol=1e-5)
    assert not torch.allclose(states[0, 10], states[1, 10], atol=1e-3)
