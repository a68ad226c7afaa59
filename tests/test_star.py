"""Windowed and full models over several processes: real ones, over gloo on the loopback."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from checkpoints import LLAMA, nazx, random_tensors, write_checkpoint
from models import checkpoint, model, random_ids, relative_error
from rank_helpers import group_of
from reference import Reference

from nazx_cli.context.context import Context
from nazx_cli.context.cost import Size, context_bytes
from nazx_cli.context.ranks.sharing import Share
from nazx_cli.engine.language_model import LanguageModel, load_planned
from nazx_cli.evaluation.approximations import approximation_of
from nazx_cli.memory.estimate import TextSize
from nazx_cli.memory.plan import LoadOptions
from nazx_cli.ranks import Group


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    with group_of(3) as found:
        yield found


def loaded(folder: Path, group: Group, block: int, dtype: str = "float32") -> LanguageModel:
    options = LoadOptions("cpu", dtype, by=Share(block=block))
    return load_planned("tiny", folder, TextSize(), options, group)


def context_of(lm: LanguageModel, ids: list[int]) -> Context:
    context = lm.new_context()
    context.append(ids)
    return context


@pytest.mark.parametrize("block", (6, 20))
@pytest.mark.parametrize("base", ("llama", "neox-parallel"))
def test_a_prompt_in_blocks_is_what_the_definition_says_in_float64(
    group: Group, base: str, block: int
) -> None:
    """And so are a long and a short message that follow."""
    folder, config = checkpoint(base, "full")
    lm, oracle = loaded(folder, group, block), Reference(config, random_tensors(config))
    context, ids, seen = lm.new_context(), random_ids(80, seed=2), 0
    found = {}
    for stop in (47, 48, 73, 80):
        context.append(ids[seen:stop])
        starts = list(range(seen, stop, block))
        if len(starts) > 1 and stop - starts[-1] < block / 2:
            starts.pop()
        for start, end in pairwise(starts):
            near = range(min(start, block))
            oracle.blocks |= {i: [*near, *range(start, i + 1)] for i in range(start, end)}
        found[stop] = lm.next_logits(context)
        seen = stop
    want = oracle.logits(ids)
    assert oracle.blocks
    assert all((found[stop] - want[stop - 1]).abs().max() < 1e-4 for stop in found)


@pytest.mark.parametrize("kind", ("full", "windowed"))
@pytest.mark.parametrize("block", (7, 200))
def test_logits_equal_those_of_one_process_where_all_is_seen(
    group: Group, kind: str, block: int
) -> None:
    """In one block, beyond a window, and after any edits: of short ones each is what asks."""
    lm, alone = loaded(checkpoint("llama", kind)[0], group, block), model("llama", kind)
    context, ids, rng = lm.new_context(), [], random.Random(block)
    for step in range(12):
        if step % 3 == 2:
            at = rng.randrange(len(ids))
            context.delete(at, len(ids))
            del ids[at:]
        new = random_ids(rng.choice((1, 2, 9)) if block == 7 else 40, seed=step)
        context.append(new)
        ids += new
        off = lm.next_logits(context) - alone.next_logits(context_of(alone, ids))
        assert off.abs().max() < 1e-4


def test_what_eval_measures_is_what_ranks_do(group: Group) -> None:
    lm = loaded(checkpoint("llama", "full")[0], group, 24)
    ids = random_ids(150, seed=9)
    states = approximation_of("star:24").states(lm.decoder, torch.tensor(ids))
    found = lm.next_logits(context_of(lm, ids))
    assert relative_error(found, lm.decoder.logits(states[-1:])[0]) < 1e-5
    exact = model("llama", "full").logits(ids)[-1]
    assert relative_error(found, exact) > 1e-3


@pytest.mark.parametrize(("count", "loses"), ((3 * 24 + 11, False), (3 * 24 + 12, True)))
def test_a_prompt_of_three_blocks_loses_nothing(group: Group, count: int, loses: bool) -> None:
    """With a rest of less than half a block."""
    lm, alone = loaded(checkpoint("llama", "full")[0], group, 24), model("llama", "full")
    ids = random_ids(count, seed=9)
    off = lm.next_logits(context_of(lm, ids)) - alone.next_logits(context_of(alone, ids))
    assert (off.abs().max() > 1e-4) == loses


def test_what_follows_a_prompt_runs_alone_and_gathers_once_a_layer(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = loaded(checkpoint("llama", "full")[0], group, 16)
    context = context_of(lm, random_ids(150, seed=4))
    rounds: list[torch.Size] = []
    gather = group.gather
    monkeypatch.setattr(group, "gather", lambda own: rounds.append(own.shape) or gather(own))
    lm.next_logits(context)
    c, asked = lm.config, 150 - 8 * 16
    one = torch.Size((1, c.num_heads, c.head_dim + 1))
    assert rounds == [torch.Size((asked, *one[1:]))] * (c.num_layers - 1) + [one]
    rounds.clear()
    context.append([3, 4])
    lm.next_logits(context)
    assert rounds == [torch.Size((2, *one[1:]))] * (c.num_layers - 1) + [one]


def test_each_rank_holds_its_share_as_the_estimate_says(group: Group, tmp_path: Path) -> None:
    config = nazx({**LLAMA, "max_position_embeddings": 4096}, {"kind": "full"})
    folder = write_checkpoint(tmp_path / "m", config)
    lm = loaded(folder, group, 256)
    context = context_of(lm, random_ids(4000, seed=4))
    lm.next_logits(context)
    whole = Size(4000, 300, 4000)
    size = whole.share(Share(3, 256))
    assert context.nbytes == pytest.approx(context_bytes(lm.config, "cached", size, 4), rel=0.2)
    assert context.nbytes < 0.45 * context_bytes(lm.config, "cached", whole, 4)


def test_16_bits_differ_by_no_more_than_their_rounding(group: Group) -> None:
    folder = checkpoint("llama", "full")[0]
    ids, found = random_ids(90, seed=6), []
    for dtype in ("float32", "bfloat16"):
        lm = loaded(folder, group, 16, dtype)
        found.append(lm.next_logits(context_of(lm, ids)))
    assert relative_error(found[1], found[0]) < 0.03


def test_angles_that_depend_on_the_length_are_those_of_the_whole(
    group: Group, tmp_path: Path
) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0}
    config = nazx({**LLAMA, "max_position_embeddings": 32, "rope_scaling": rope}, {"kind": "full"})
    folder = write_checkpoint(tmp_path / "m", config)
    lm, alone = loaded(folder, group, 100), model_of(folder)
    context, ids = lm.new_context(), []
    for count in (20, 30, 1):
        ids += random_ids(count, seed=count)
        context.append(ids[len(context) :])
        off = lm.next_logits(context) - alone.next_logits(context_of(alone, ids))
        assert off.abs().max() < 1e-4


def model_of(folder: Path) -> LanguageModel:
    return load_planned("tiny", folder, TextSize(), LoadOptions("cpu", "float32"))
