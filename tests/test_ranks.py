"""Contexts over several processes: real ones, over gloo on the loopback."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import LLAMA, nazx, write_checkpoint
from models import INATTENTION, checkpoint, model, random_ids
from rank_helpers import group_of
from test_layouts import _edit

from nazx_cli.bench.processes import rank
from nazx_cli.context.cost import Size, context_bytes
from nazx_cli.context.layouts import LAYOUTS
from nazx_cli.context.ranks.shards import Shards
from nazx_cli.context.ranks.sharing import Share
from nazx_cli.engine.language_model import LanguageModel, load_model, load_planned
from nazx_cli.memory.estimate import TextSize
from nazx_cli.memory.plan import LoadOptions
from nazx_cli.ranks import Group


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    with group_of(3) as found:
        yield found


def loaded(folder: Path, group: Group, layout: str = "auto") -> LanguageModel:
    options = LoadOptions("cpu", "float32", layout=layout)
    return load_planned("tiny", folder, TextSize(), options, group)


def test_the_stretches_of_all_ranks_are_the_context_after_any_edits() -> None:
    rng = random.Random(0)
    for count in (1, 2, 5):
        shards, whole, held = Shards(count), [], [[] for _ in range(count)]  # type: ignore[var-annotated]
        for step in range(200):
            for _ in range(rng.randrange(4)):
                at = rng.randint(0, len(whole))
                removed = rng.randint(0, min(6, len(whole) - at))
                new = [rng.random() for _ in range(rng.choice((0, 1, 9)))]
                whole[at : at + removed] = new
                shards.edited(at, removed, len(new))
            whole += [step] * rng.choice((0, 1, 1, 30))
            for stretch, own in zip(shards.settle(len(whole)), held, strict=True):
                for edit in stretch.edits:
                    own[edit.at : edit.at + edit.removed] = whole[edit.start : edit.stop]
                assert own == whole[stretch.start : stretch.start + stretch.length]
            assert [x for own in held for x in own] == whole


def test_an_edit_costs_the_rank_in_whose_stretch_it_is_and_no_other() -> None:
    shards = Shards(4)
    shards.settle(40_000)
    shards.edited(25_000, 10, 3)
    stretches = shards.settle(39_993)
    assert [len(stretch.edits) for stretch in stretches] == [0, 0, 1, 0]
    assert [stretch.start for stretch in stretches] == [0, 10_000, 20_000, 29_993]
    assert [len(stretch.edits) for stretch in shards.settle(39_994)] == [0, 0, 0, 1]


def test_what_is_added_ends_up_in_equal_stretches() -> None:
    shards = Shards(2)
    shards.settle(100_000)
    assert [stretch.length for stretch in shards.settle(160_000)] == [80_000, 80_000]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ("inattention", "convolved"))
def test_logits_equal_those_of_one_process_after_any_edits(
    group: Group, layout: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "neox-sequential" if kind == "inattention" else "llama"
    lm = loaded(checkpoint(base, kind)[0], group, layout)
    alone, rng = model(base, kind, layout=layout), random.Random(layout)
    context, ids = lm.new_context(), random_ids(1, seed=8, vocab=12)  # one token: empty stretches
    context.append(ids)
    for _ in range(14):
        if ids:
            same = alone.new_context()
            same.append(ids)
            off = (lm.next_logits(context) - alone.next_logits(same)).abs().max()
            assert off < 1e-4
        for _ in range(rng.choice((1, 3))):
            _edit(rng, context, ids, vocab=rng.choice((2, 12, 300)))
        assert context.ids.tolist() == ids


def test_long_contexts_are_cut_and_edited_where_they_stand(group: Group) -> None:
    lm, alone = loaded(checkpoint("llama", "inattention")[0], group), model("llama", "inattention")
    both = lm.new_context(), alone.new_context()
    ids = random_ids(9000, seed=3)
    for context in both:
        context.append(ids, resident=True)
    for edit in ((0, 0, 0), (10, 40, 7), (2990, 30, 0), (5000, 3900, 1), (3000, 1500, 0)):
        at, removed, added = edit
        results = []
        for context, each in zip(both, (lm, alone), strict=True):
            context.delete(at, at + removed)
            context.insert(at, [5] * added)
            context.append([7])
            results.append(each.next_logits(context))
        assert (results[0] - results[1]).abs().max() < 1e-4


def test_each_rank_holds_a_part_of_the_bytes(group: Group) -> None:
    ids, held = random_ids(30_000, seed=4), []
    for lm in (
        loaded(checkpoint("llama", "inattention")[0], group, "states"),
        model("llama", "inattention", layout="states"),
    ):
        context = lm.new_context()
        context.append(ids)
        lm.next_logits(context)
        held.append(context.memory.nbytes)
    assert held[0] < 0.35 * held[1]


@pytest.mark.parametrize("layout", ("ids", "pairs", "tables"))
def test_the_first_ranks_share_is_what_the_estimate_says(group: Group, layout: str) -> None:
    lm = loaded(checkpoint("llama", "inattention")[0], group, layout)
    context = lm.new_context()
    context.append(random_ids(30_000, seed=4), resident=True)  # all 300 tokens in every stretch
    lm.next_logits(context)
    size = Size(30_000, 300, kernel=lm.attention.kernel).share(Share(3))
    assert context.nbytes == pytest.approx(context_bytes(lm.config, layout, size, 4), rel=0.05)


def test_angles_that_depend_on_the_length_are_those_of_the_whole_context(
    group: Group, tmp_path: Path
) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0}
    config = nazx({**LLAMA, "max_position_embeddings": 32, "rope_scaling": rope}, INATTENTION)
    folder = write_checkpoint(tmp_path / "m", config)
    for layout in ("pairs", "cached"):
        lm, alone = loaded(folder, group, layout), load_model(folder, layout=layout)
        contexts = lm.new_context(), alone.new_context()
        for count in (20, 30, 1):
            for context in contexts:
                context.append(random_ids(count, seed=count))
            off = lm.next_logits(contexts[0]) - alone.next_logits(contexts[1])
            assert off.abs().max() < 1e-4


def test_contexts_that_are_gone_are_forgotten_by_all(group: Group) -> None:
    lm = loaded(checkpoint("llama", "inattention")[0], group)
    for _ in range(3):
        context = lm.new_context()
        context.append([1, 2, 3])
        lm.next_logits(context)
        del context
        gc.collect()
    assert len(group.dropped) == 1
    context = lm.new_context()
    context.append([1])
    lm.next_logits(context)
    assert group.dropped == []


def test_one_collective_a_layer_moves_the_same_bytes_however_long_the_context(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = loaded(checkpoint("llama", "inattention")[0], group)
    config, moved, rounds = lm.config, [], []
    gather = group.gather
    monkeypatch.setattr(group, "gather", lambda own: rounds.append(own.shape) or gather(own))
    for count in (50, 5000):
        context = lm.new_context()
        context.append(random_ids(count, seed=1))
        lm.next_logits(context)
        context.append([3])
        rounds.clear()
        before = group.moved
        lm.next_logits(context)
        moved.append(group.moved - before)
    assert rounds == [(config.num_heads, config.head_dim + 1)] * config.num_layers
    assert moved[0] == moved[1]


def test_the_bench_counts_what_goes_from_process_to_process(group: Group) -> None:
    timed = rank.Timed(group.rank, group.size)
    lm = loaded(checkpoint("llama", "inattention")[0], timed)
    case = rank.Case("", "float32", 2000, group.size, resident=True)
    (_, *further), held = rank.of_tokens(lm, case, timed)
    c, found = lm.config, further[-1]
    gathered = c.num_layers * c.num_heads * (c.head_dim + 1) * 4 * 2 * (group.size - 1)
    assert gathered < found.moved < gathered + 500  # and a message to each of the others
    sockets = sum(each.sockets for each in further) / len(further)
    assert found.moved < sockets < 2 * found.moved + 2000
    assert held > 2000 * 4
