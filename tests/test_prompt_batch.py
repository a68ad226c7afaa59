"""Prompts answered side by side give what each gives alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import BASES, model, random_ids, reference, relative_error

from nazx_cli.errors import NazxError
from nazx_cli.kernels.native.step import Step
from nazx_cli.model.attention.batch import PromptBatch
from nazx_cli.model.one_position import OnePosition


@pytest.mark.parametrize("base", BASES)
def test_every_row_has_the_logits_of_its_prompt_alone(base: str) -> None:
    lm = model(base, "full")
    prompts = [random_ids(n, seed=n) for n in (1, 2, 7, 12)]
    batch = PromptBatch(lm.decoder, prompts, room=4)
    for step in range(4):
        for row, ids in enumerate(prompts):
            want = reference(base, "full").logits(ids)[-1]
            assert relative_error(batch.logits[row], want) < 1e-4
        if step < 3:
            tokens = random_ids(len(prompts), seed=100 + step)
            batch.step(tokens)
            prompts = [[*ids, token] for ids, token in zip(prompts, tokens, strict=True)]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("alike", (1, 4, 11))
def test_what_prompts_begin_with_is_run_once_and_changes_nothing(base: str, alike: int) -> None:
    lm, begin = model(base, "full"), random_ids(alike, seed=1)
    prompts = [[*begin, *random_ids(n, seed=n)] for n in (1, 6, 3)]
    runs: list[int] = []
    hook = lm.decoder.embed.register_forward_hook(lambda _, given, __: runs.append(len(given[0])))
    batch = PromptBatch(lm.decoder, prompts, room=1)
    hook.remove()
    assert runs == [alike, 1 + 6 + 3]
    first = batch.logits
    got = batch.step([5, 6, 7])
    for row, (ids, token) in enumerate(zip(prompts, (5, 6, 7), strict=True)):
        assert relative_error(first[row], reference(base, "full").logits(ids)[-1]) < 1e-4
        assert relative_error(got[row], reference(base, "full").logits([*ids, token])[-1]) < 1e-4


@pytest.mark.parametrize("length", (1, 2, 5))
def test_the_same_prompt_twice_gives_the_same_twice(length: int) -> None:
    ids = random_ids(length, seed=3)
    batch = PromptBatch(model("llama", "full").decoder, [ids, ids], room=1)
    want = reference("llama", "full").logits(ids)[-1]
    assert all(relative_error(batch.logits[row], want) < 1e-4 for row in (0, 1))


def test_rows_that_are_kept_go_on_as_before() -> None:
    lm = model("llama", "full")
    prompts = [random_ids(n, seed=n) for n in (3, 9, 5)]
    batch = PromptBatch(lm.decoder, prompts, room=2)
    batch.keep([2, 0])
    got = batch.step([11, 12])
    for row, ids in enumerate(([*prompts[2], 11], [*prompts[0], 12])):
        assert relative_error(got[row], reference("llama", "full").logits(ids)[-1]) < 1e-4


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("count", (1, 3, 4, 5))
def test_few_prompts_go_on_in_compiled_code_as_they_do_without(
    base: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = model(base, "full")
    if OnePosition(lm.decoder).step() is None:
        pytest.skip("no compiled layers here")
    prompts = [random_ids(n, seed=n) for n in (7, 1, 12, 4, 9)[:count]]
    compiled, plain = (PromptBatch(lm.decoder, prompts, room=3) for _ in range(2))
    ran, run = [0], Step.run

    def counted(self: Step, *given: Any) -> Any:
        ran[0] += 1
        return run(self, *given)

    monkeypatch.setattr(Step, "run", counted)
    for seed in range(3):
        tokens = random_ids(count, seed=50 + seed)
        got = compiled.step(tokens)
        with monkeypatch.context() as without:
            without.setenv("NAZX_NATIVE", "0")
            want = plain.step(tokens)
        assert relative_error(got, want) < 1e-4
    assert ran[0] == (3 * count if count < 5 else 0)


def test_a_windowed_model_within_its_window_attends_as_alone() -> None:
    lm = model("llama", "windowed")
    prompts = [random_ids(n, seed=n) for n in (4, 6)]
    batch = PromptBatch(lm.decoder, prompts, room=1)
    got = batch.step([5, 6])
    for row, ids in enumerate(([*prompts[0], 5], [*prompts[1], 6])):
        assert relative_error(got[row], reference("llama", "windowed").logits(ids)[-1]) < 1e-4


def test_bfloat16_stays_near_float32() -> None:
    prompts = [random_ids(n, seed=n) for n in (8, 3)]
    wide = PromptBatch(model("llama", "full").decoder, prompts, room=1).step([1, 2])
    narrow = PromptBatch(model("llama", "full", "bfloat16").decoder, prompts, room=1).step([1, 2])
    assert relative_error(narrow, wide) < 0.05


@pytest.mark.parametrize("prompts", ([], [[]], [[1], []]))
def test_an_empty_prompt_is_refused(prompts: list[list[int]]) -> None:
    with pytest.raises(NazxError, match="empty"):
        PromptBatch(model("llama", "full").decoder, prompts, room=1)


def test_room_is_what_keys_and_values_take() -> None:
    lm = model("llama", "full")
    batch = PromptBatch(lm.decoder, [[1, 2, 3], [4]], room=5)
    config = lm.config
    elements = config.num_layers * 2 * config.num_kv_heads * (3 + 5) * config.head_dim
    assert batch.nbytes == 2 * elements * torch.float32.itemsize
