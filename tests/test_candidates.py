"""Answers to several prompts at once: as each alone, with the model's own probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import LLAMA, random_tensors, write_checkpoint
from models import model, random_ids, reference

from nazx_cli.engine.generator import Candidate, Opening, answer_each
from nazx_cli.engine.language_model import LanguageModel, load_model
from nazx_cli.engine.sampling import Sampling


def _alone(ids: list[int], count: int, stops: frozenset[int], number: int = 0) -> Candidate:
    """The greedy answer of the slow float64 decoder."""
    tokens: list[int] = []
    logprobs: list[float] = []
    while len(logprobs) < count:
        likely = reference("llama", "full").logits([*ids, *tokens])[-1].log_softmax(-1)
        token = int(likely.argmax())
        logprobs.append(float(likely[token]))
        if token in stops:
            return Candidate(tuple(tokens), tuple(logprobs), "stop", number, 1)
        tokens.append(token)
    return Candidate(tuple(tokens), tuple(logprobs), "length", number, 1)


@pytest.mark.parametrize("lengths", ((5,), (1, 9, 4), (6, 6)))
def test_each_answer_is_the_one_its_prompt_gets_alone(lengths: tuple[int, ...]) -> None:
    prompts = [random_ids(n, seed=10 + k) for k, n in enumerate(lengths)]
    free = [_alone(ids, 5, frozenset()) for ids in prompts]
    stops = frozenset({free[0].tokens[2]})  # one answer ends early, others may go on
    lm = model("llama", "full")
    got = answer_each(
        lm.decoder,
        lm.tokenizer,
        prompts,
        max_tokens=5,
        sampling=Sampling(),
        stop_ids=stops,
    )
    for number, (candidate, ids) in enumerate(zip(got, prompts, strict=True)):
        want = _alone(ids, 5, stops)
        assert candidate.prompt == number
        assert candidate.tokens == want.tokens
        assert candidate.finish == want.finish
        assert candidate.logprobs == pytest.approx(want.logprobs, abs=1e-3)
    assert got[0].finish == "stop" and len(got[0].logprobs) == len(got[0].tokens) + 1


@pytest.mark.parametrize("most", (1, 2, 3, 4))
def test_the_prompts_after_which_the_opening_is_likeliest_are_answered(most: int) -> None:
    prompts = [random_ids(n, seed=20 + n) for n in (5, 9, 2)]
    lm, opening = model("llama", "full"), 17
    begins = [
        reference("llama", "full").logits(ids)[-1].log_softmax(-1)[opening] for ids in prompts
    ]
    wanted = sorted(sorted(range(3), key=lambda at: -float(begins[at]))[:most])
    got = lm.answer_each(
        prompts, max_tokens=3, stop_ids=frozenset(), opening=Opening(opening, most)
    )
    assert [each.prompt for each in got] == wanted
    every = lm.answer_each(prompts, max_tokens=3, stop_ids=frozenset(), opening=Opening(opening))
    for each in got:
        assert each.tokens == every[each.prompt].tokens and each.tokens[0] == opening
        assert each.logprobs[0] == pytest.approx(float(begins[each.prompt]), abs=1e-3)
    assert all(each.put == 3 for each in got)


@pytest.mark.parametrize("first", (1, 2, 4, 5, 6))
@pytest.mark.parametrize("most", (1, 3, None))
@pytest.mark.parametrize("is_sure", (True, False))
def test_further_prompts_are_put_only_where_the_first_are_not_enough(
    first: int, most: int | None, is_sure: bool
) -> None:
    prompts = [random_ids(n, seed=40 + n) for n in (4, 1, 9, 3, 7)]
    lm = model("llama", "full")
    begins = [reference("llama", "full").logits(ids)[-1].softmax(-1)[17] for ids in prompts]
    best = float(max(begins[:first]))
    enough = best * (0.999 if is_sure else 1.001)
    put = min(first, 5) if is_sure else 5
    wanted = sorted(sorted(range(put), key=lambda at: -float(begins[at]))[:most])
    opening = Opening(17, most, first, enough)
    got = lm.answer_each(prompts, max_tokens=3, stop_ids=frozenset(), opening=opening)
    assert [each.prompt for each in got] == wanted and all(each.put == put for each in got)
    every = lm.answer_each(prompts, max_tokens=3, stop_ids=frozenset(), opening=Opening(17))
    for each in got:
        assert each.tokens == every[each.prompt].tokens
        assert each.logprobs == pytest.approx(every[each.prompt].logprobs, abs=1e-3)


def test_no_prompts_no_answers() -> None:
    assert model("llama", "full").answer_each([], max_tokens=3) == []


def test_progress_counts_the_longest_answer() -> None:
    told: list[int] = []
    lm = model("llama", "full")
    answer_each(
        lm.decoder,
        lm.tokenizer,
        [random_ids(4, seed=3)],
        max_tokens=3,
        sampling=Sampling(),
        stop_ids=frozenset(),
        on_token=told.append,
    )
    assert told == [1, 2, 3]


def test_a_drawn_answer_does_not_depend_on_its_neighbours() -> None:
    lm = model("llama", "full")
    mine, other = random_ids(6, seed=1), random_ids(11, seed=2)
    sampling = Sampling(temperature=1.0, seed=7)
    alone = lm.answer_each([mine], max_tokens=4, sampling=sampling)
    both = lm.answer_each([other, mine], max_tokens=4, sampling=sampling)
    assert both[1].tokens == alone[0].tokens


def _says_over_and_over(folder: Path, text: str, ends: str) -> LanguageModel:
    """A model that says each letter of ``text`` after the one before it, the first after the last;
    after ``ends``, which is none of them, it stops."""
    config = {**LLAMA, "tie_word_embeddings": False}
    tensors = random_tensors(config)
    tokenizer = model("llama", "full").tokenizer
    ids = [tokenizer.encode(letter)[0] for letter in (*text, *ends)]
    after = [*ids[1 : len(text)], ids[0], min(tokenizer.stop_ids)]
    embedding, head = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"]
    for each in (embedding, head):
        each.zero_()
    for at, (before, token) in enumerate(zip(ids, after, strict=True)):
        embedding[before, at] = head[token, at] = 1.0
    for name, weights in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weights.zero_()
        elif name.endswith("norm.weight"):
            torch.nn.init.ones_(weights)
    return load_model(write_checkpoint(folder, config, tensors))


def test_an_answer_that_goes_round_in_circles_is_cut_and_its_neighbours_are_not(
    tmp_path: Path,
) -> None:
    lm = _says_over_and_over(tmp_path / "model", "very ", "!")
    circling, ending = ([lm.tokenizer.encode(letter)[0]] for letter in " !")
    rounds: list[int] = []
    found = answer_each(
        lm.decoder,
        lm.tokenizer,
        [circling, ending, circling],
        max_tokens=200,
        sampling=Sampling(),
        stop_ids=lm.tokenizer.stop_ids,
        on_token=rounds.append,
    )
    assert [candidate.finish for candidate in found] == ["loop", "stop", "loop"]
    assert rounds[-1] < 100
    for candidate in (found[0], found[2]):
        assert lm.tokenizer.decode(candidate.tokens).startswith("very ")
        assert len(candidate.tokens) < 15
        assert len(candidate.logprobs) == len(candidate.tokens)
