"""Packs: branches are the prompts they stand for, and the backward pass written out is right."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from training_models import fresh, random_pack, with_random_additions

from nazx_cli.errors import NazxError, UsageError
from nazx_cli.training.gradients.engines import LoraByAutograd, PackGradients, lora_engine
from nazx_cli.training.gradients.forward import answer_logits, reach
from nazx_cli.training.gradients.fused import Fused
from nazx_cli.training.lora import LoraSettings, attach
from nazx_cli.training.packing import Pack, lay_out, pack, read_packs, write_packs


def alone(lm, each: Pack, number: int) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """Logits of a branch's answer, from the model's own run of its prompt."""
    branch = each.branches[number]
    ids = [*each.prefix, *branch.prompt, *branch.answer[:-1]]
    logits: torch.Tensor = lm.logits(ids)
    return logits[len(each.prefix) + len(branch.prompt) - 1 :]


@pytest.mark.parametrize("base", ("llama", "neox-sequential", "neox-parallel"))
@pytest.mark.parametrize(("prefix", "branches"), ((0, 1), (0, 3), (1, 2), (37, 4), (150, 5)))
def test_a_branch_is_the_prompt_that_it_would_be_alone(
    tmp_path: Path, base: str, prefix: int, branches: int
) -> None:
    lm = fresh(tmp_path / base, base)
    each = random_pack(prefix + branches, prefix, branches)
    layout = lay_out(each)
    logits = answer_logits(lm.decoder, layout).detach()
    for number in range(branches):
        mine = logits[layout.owners == number]
        assert (mine - alone(lm, each, number)).abs().max() < 2e-4
    assert layout.targets.tolist() == [token for b in each.branches for token in b.answer]


@pytest.mark.parametrize("base", ("llama", "llama-biased", "qwen2"))
@pytest.mark.parametrize("targets", ((), ("q_proj", "down_proj"), ("k_proj", "v_proj")))
@pytest.mark.parametrize(("prefix", "branches"), ((0, 2), (5, 1), (140, 4)))
def test_the_written_out_gradients_are_those_of_autograd(
    tmp_path: Path, base: str, targets: tuple[str, ...], prefix: int, branches: int
) -> None:
    lm = fresh(tmp_path / "model", base)
    adapted = with_random_additions(lm, LoraSettings(4, 8.0, targets))
    layout = lay_out(random_pack(7, prefix, branches))
    weights = torch.rand(len(layout.targets), generator=torch.Generator().manual_seed(3))
    found: list[tuple[float, list[torch.Tensor]]] = []
    engines: tuple[PackGradients, ...] = (
        LoraByAutograd(lm.decoder, adapted),
        Fused(lm.decoder, adapted),
    )
    for engine in engines:
        engine.refresh()
        loss = float(engine.loss(layout, weights, 0.5))
        grads = [p.grad.clone() for p in engine.parameters if p.grad is not None]
        assert len(grads) == len(engine.parameters)
        found.append((loss, grads))
        for parameter in engine.parameters:
            parameter.grad = None
    (want, theirs), (got, mine) = found
    assert got == pytest.approx(want, rel=1e-5)
    for a, b in zip(mine, theirs, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-7


def test_gradients_agree_with_finite_differences(tmp_path: Path) -> None:
    lm = fresh(tmp_path / "model")
    adapted = with_random_additions(lm, LoraSettings(2, 4.0))
    engine = Fused(lm.decoder, adapted)
    engine.refresh()
    layout = lay_out(random_pack(11, 9, 2))
    weights = torch.ones(len(layout.targets))
    engine.loss(layout, weights, 1.0)
    generator = torch.Generator().manual_seed(5)
    for parameter in engine.parameters[:7]:
        direction = torch.randn(parameter.shape, generator=generator)
        direction /= direction.norm()
        assert parameter.grad is not None
        slope = float((parameter.grad * direction).sum())
        losses = []
        for step in (1e-2, -2e-2):
            parameter.data += step * direction
            engine.refresh()
            losses.append(float(engine.loss(layout, weights, None)))
        parameter.data += 1e-2 * direction
        engine.refresh()
        assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(slope, rel=0.05, abs=5e-3)


def test_additions_merged_from_more_digits_than_are_computed_with(tmp_path: Path) -> None:
    exact = fresh(tmp_path / "model")
    bases = {
        name: parameter.detach().clone() for name, parameter in exact.decoder.named_parameters()
    }
    lm = fresh(tmp_path / "model", dtype="bfloat16")
    adapted = with_random_additions(lm, LoraSettings(4, 8.0))
    engine = lora_engine(lm.decoder, adapted, bases)
    assert isinstance(engine, Fused)
    engine.refresh()
    layer = adapted[0].layer
    low = layer.down.data[: layer.rank]
    rows = layer.rows[0]
    want = bases[adapted[0].recipe.parameter][:rows] + layer.scale * layer.up[0].data @ low
    assert torch.equal(engine.qkv[0].weight[:rows], want.to(torch.bfloat16))


def test_prompts_that_begin_alike_share_their_beginning() -> None:
    rng = random.Random(2)
    for _ in range(50):
        shared = [rng.randrange(9) for _ in range(rng.randrange(8))]
        rows = [
            ([*shared, *(rng.randrange(9) for _ in range(rng.randint(1, 5)))], [rng.randrange(9)])
            for _ in range(rng.randint(1, 4))
        ]
        made = pack(rows)
        for branch, (prompt, answer) in zip(made.branches, rows, strict=True):
            assert [*made.prefix, *branch.prompt] == prompt
            assert branch.prompt and list(branch.answer) == answer
        if len(rows) > 1:
            assert len(made.prefix) >= min(len(shared), min(len(p) for p, _ in rows) - 1)


def test_packs_are_kept_as_they_are(tmp_path: Path) -> None:
    packs = [random_pack(seed, seed, 1 + seed % 4) for seed in range(9)]
    write_packs(tmp_path / "packs.npz", packs)
    assert read_packs(tmp_path / "packs.npz") == packs
    write_packs(tmp_path / "none.npz", [])
    assert read_packs(tmp_path / "none.npz") == []
    (tmp_path / "packs.npz").write_bytes(b"PK nothing")
    with pytest.raises(NazxError, match="begin the run again"):
        read_packs(tmp_path / "packs.npz")


def test_what_cannot_be_tuned_is_refused(tmp_path: Path) -> None:
    from models import model

    with pytest.raises(UsageError, match="InAttention"):
        reach(model("llama", "inattention").config)
    assert reach(model("llama", "windowed").config) == 11
    lm = fresh(tmp_path / "model")
    with pytest.raises(UsageError, match="choose from down_proj"):
        attach(lm.decoder, LoraSettings(targets=("query",)))


def test_nothing_is_added_at_first(tmp_path: Path) -> None:
    lm = fresh(tmp_path / "model")
    ids = list(range(40))
    want = lm.logits(ids)
    attach(lm.decoder, LoraSettings())
    assert torch.equal(lm.logits(ids), want)
    assert F.cross_entropy(want[:-1], torch.tensor(ids[1:])) > 0
