"""Tokens run ahead of an answer: each step is what it is without them, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from checkpoints import nazx, write_checkpoint
from family_configs import write_family
from models import BASES, WINDOWED, model, random_ids

from nazx_cli.context.context import Context
from nazx_cli.context.live_cache import LiveCache
from nazx_cli.engine.generator import Step
from nazx_cli.engine.language_model import LanguageModel, load_model
from nazx_cli.engine.lookup import Lookup
from nazx_cli.engine.sampling import Sampling
from nazx_cli.kernels.native.products import multiplies

compiled = pytest.mark.skipif(
    not multiplies(), reason="no compiler, or no vectors that it has code for"
)

MOST = 8
CIRCLING = [7, 8, 9, 10, 11] * 3  # what a prompt holds, so that there are drafts


def begun(lm: LanguageModel, ids: Sequence[int]) -> Context:
    """A context whose next position is a single one."""
    context = lm.new_context()
    context.append(ids[:-1])
    lm.next_logits(context)
    context.append(ids[-1:])
    return context


def one_by_one(lm: LanguageModel, ids: Sequence[int], drafts: Sequence[int]) -> torch.Tensor:
    context = begun(lm, ids)
    rows = [lm.next_logits(context)]
    for token in drafts:
        context.append([token])
        rows.append(lm.next_logits(context))
    return torch.stack(rows)


def check_rows(lm: LanguageModel, length: int) -> None:
    ids, drafts = random_ids(length, seed=50), random_ids(MOST, seed=51)
    want = one_by_one(lm, ids, drafts)
    for count in (1, 2, 3, MOST):
        context = begun(lm, ids)
        got = lm.logits_ahead(context, drafts[:count])
        assert len(got) == count + 1
        assert torch.equal(got, want[: count + 1])
        assert context.ids.tolist() == ids
        # Some were right, the others not: all goes on as if these had never been.
        context.append([*drafts[: count // 2], 5])
        wrong = one_by_one(lm, ids, [*drafts[: count // 2], 5])
        context.delete(len(context) - 1, len(context))
        if count // 2:
            assert torch.equal(lm.next_logits(context), want[count // 2])
        context.append([5])
        assert torch.equal(lm.next_logits(context), wrong[-1])


@compiled
@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
@pytest.mark.parametrize("kind", ("windowed", "full"))
@pytest.mark.parametrize("base", BASES)
def test_positions_run_together_are_those_run_one_by_one(base: str, kind: str, dtype: str) -> None:
    for length in (5, 40):  # as the window fills, and past it
        check_rows(model(base, kind, dtype=dtype), length)


@compiled
@pytest.mark.parametrize("windowed", (False, True))
@pytest.mark.parametrize("name", ("gemma2-caps", "gemma3", "qwen3", "phi3", "mistral-window"))
def test_families_run_ahead_as_they_run(tmp_path: Path, name: str, windowed: bool) -> None:
    check_rows(load_model(write_family(tmp_path, name, WINDOWED if windowed else None)), 12)


@compiled
@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("quantize", ("int8", "nf4"))
def test_quantized_weights_run_ahead_as_they_run(tmp_path: Path, quantize: str) -> None:
    pytest.importorskip("bitsandbytes")
    sizes = {"hidden_size": 64, "intermediate_size": 192, "head_dim": 32}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2}
    where = write_checkpoint(tmp_path, nazx(BASES["llama"], WINDOWED, **sizes, **heads))
    check_rows(load_model(where, quantize=quantize), 20)


def answer(
    lm: LanguageModel, ids: Sequence[int], most: int, **options: object
) -> tuple[list[Step], Context]:
    context = lm.new_context()
    context.append(ids)
    options.setdefault("stop_ids", frozenset())
    options.setdefault("max_tokens", 24)
    steps = list(lm.generate(context, most_drafts=most, **options))  # type: ignore[arg-type]
    return steps, context


def said(steps: Sequence[Step]) -> list[tuple[int, str, str, str | None, int]]:
    return [(s.token, s.text, s.delta, s.finish, s.stats.context_tokens) for s in steps]


@pytest.mark.parametrize("kind", ("inattention", "windowed", "full"))
@pytest.mark.parametrize(
    "sampling",
    (
        Sampling(),
        Sampling(repeat_penalty=1.3),
        Sampling(temperature=0.7, top_p=0.9, seed=3),
        Sampling(temperature=2.0, seed=4),
    ),
)
def test_an_answer_is_the_same_for_any_number_of_drafts(kind: str, sampling: Sampling) -> None:
    lm = model("llama", kind)
    plain, without = answer(lm, CIRCLING, 0, sampling=sampling)
    for most in (7,) if kind == "inattention" else (1, 2, 3, 4, 5, 6, 7, 8):
        steps, context = answer(lm, CIRCLING, most, sampling=sampling)
        assert said(steps) == said(plain)
        assert context.ids.tolist() == without.ids.tolist()
        assert torch.equal(lm.next_logits(context), lm.next_logits(without))


@compiled
def test_an_answer_that_repeats_takes_fewer_runs() -> None:
    lm = model("llama", "windowed")
    assert lm.attention.runs_ahead
    circling, _ = answer(lm, [5] * 20, 7, max_tokens=60)
    plain, _ = answer(lm, [5] * 20, 0, max_tokens=60)
    assert said(circling) == said(plain)
    runs = [step.stats.runs for step in (circling[-1], plain[-1])]
    assert runs[1] == len(plain)
    assert runs[0] is not None and runs[0] < 0.7 * len(circling)


@pytest.mark.parametrize("stop_after", (1, 2, 5, 9))
def test_an_answer_that_is_cut_leaves_no_draft(stop_after: int) -> None:
    lm = model("llama", "windowed")
    whole, _ = answer(lm, CIRCLING, 0)
    context = lm.new_context()
    context.append(CIRCLING)
    steps: Iterator[Step] = lm.generate(context, max_tokens=24, stop_ids=frozenset())
    for step in steps:
        if step.stats.generated == stop_after:
            break
    assert context.ids.tolist() == CIRCLING + [step.token for step in whole[:stop_after]]
    rest = lm.generate(context, max_tokens=24 - stop_after, stop_ids=frozenset())
    assert [step.token for step in rest] == [step.token for step in whole[stop_after:]]


@compiled
def test_an_interrupt_while_drafts_run_leaves_a_context_that_still_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm, ids = model("llama", "windowed"), random_ids(20, seed=52)
    want, context = one_by_one(lm, ids, [3]), begun(lm, ids)

    def interrupting(cache: LiveCache, ids: torch.Tensor) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LiveCache, "commit", interrupting)
        with pytest.raises(KeyboardInterrupt):
            lm.logits_ahead(context, [1, 2, 3])
    assert context.ids.tolist() == ids
    context.append([3])
    assert (lm.next_logits(context) - want[1]).abs().max() < 1e-4


@compiled
@pytest.mark.parametrize("kind", ("windowed", "full"))
def test_drafts_take_no_memory_that_the_answer_would_not(kind: str) -> None:
    lm, held = model("llama", kind), []
    for most in (0, MOST):
        context = lm.new_context()
        context.append([5] * 100)
        sizes = []
        for _ in lm.generate(context, max_tokens=300, stop_ids=frozenset(), most_drafts=most):
            cache = context.memory
            assert isinstance(cache, LiveCache)
            sizes.append((len(context), cache.keys.shape[2]))
        held.append(sizes)
    assert held[0] == held[1]


def test_drafts_grow_while_they_are_right_and_shrink_when_one_is_wrong() -> None:
    context = model("llama", "full").new_context()
    context.append([*range(20), 100, 0, 1, 2])
    asked: list[list[int]] = []

    def logits(_: Context, drafts: Sequence[int]) -> torch.Tensor:
        asked.append(list(drafts))
        return torch.zeros(1 + len(drafts), 4)

    lookup = Lookup(logits, context, 4)
    for token in (3, 4, 5, 6, 7, 8, 9, 10, 50, 10, 11, 12, 13, 14):
        lookup.logits()
        lookup.push(token)
    lookup.logits()
    assert asked == [[3], [5, 6], [8, 9, 10, 11], [], [], [], [13], [15, 16]]


def test_without_room_for_drafts_there_are_none() -> None:
    lm = model("llama", "inattention")
    context = begun(lm, CIRCLING)
    assert len(lm.logits_ahead(context, [12, 13])) == 1 and not lm.attention.runs_ahead
    assert len(answer(lm, CIRCLING, 7)[0]) == answer(lm, CIRCLING, 7)[0][-1].stats.runs
