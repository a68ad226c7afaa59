"""Answers to several prompts at once: as each alone, with the model's own probabilities."""

from __future__ import annotations

import pytest
from models import model, random_ids, reference

from nazx_cli.engine.generator import Candidate, answer_each
from nazx_cli.engine.sampling import Sampling


def _alone(ids: list[int], count: int, stops: frozenset[int]) -> Candidate:
    """The greedy answer of the slow float64 decoder."""
    tokens: list[int] = []
    logprobs: list[float] = []
    while len(logprobs) < count:
        likely = reference("llama", "full").logits([*ids, *tokens])[-1].log_softmax(-1)
        token = int(likely.argmax())
        logprobs.append(float(likely[token]))
        if token in stops:
            return Candidate(tuple(tokens), tuple(logprobs), "stop")
        tokens.append(token)
    return Candidate(tuple(tokens), tuple(logprobs), "length")


@pytest.mark.parametrize("lengths", ((5,), (1, 9, 4), (6, 6)))
def test_each_answer_is_the_one_its_prompt_gets_alone(lengths: tuple[int, ...]) -> None:
    prompts = [random_ids(n, seed=10 + k) for k, n in enumerate(lengths)]
    free = [_alone(ids, 5, frozenset()) for ids in prompts]
    stops = frozenset({free[0].tokens[2]})  # one answer ends early, others may go on
    got = answer_each(
        model("llama", "full").decoder,
        prompts,
        max_tokens=5,
        sampling=Sampling(),
        stop_ids=stops,
    )
    for candidate, ids in zip(got, prompts, strict=True):
        want = _alone(ids, 5, stops)
        assert candidate.tokens == want.tokens
        assert candidate.finish == want.finish
        assert candidate.logprobs == pytest.approx(want.logprobs, abs=1e-3)
    assert got[0].finish == "stop" and len(got[0].logprobs) == len(got[0].tokens) + 1


def test_no_prompts_no_answers() -> None:
    decoder = model("llama", "full").decoder
    assert answer_each(decoder, [], max_tokens=3, sampling=Sampling(), stop_ids=frozenset()) == []


def test_progress_counts_the_longest_answer_and_the_mean_is_over_all_tokens() -> None:
    told: list[int] = []
    [one] = answer_each(
        model("llama", "full").decoder,
        [random_ids(4, seed=3)],
        max_tokens=3,
        sampling=Sampling(),
        stop_ids=frozenset(),
        on_token=told.append,
    )
    assert told == [1, 2, 3]
    assert one.mean_logprob == pytest.approx(sum(one.logprobs) / 3)


def test_a_drawn_answer_does_not_depend_on_its_neighbours() -> None:
    decoder = model("llama", "full").decoder
    mine, other = random_ids(6, seed=1), random_ids(11, seed=2)
    options = {"max_tokens": 4, "stop_ids": frozenset[int]()}
    sampling = Sampling(temperature=1.0, seed=7)
    alone = answer_each(decoder, [mine], sampling=sampling, **options)  # type: ignore[arg-type]
    both = answer_each(decoder, [other, mine], sampling=sampling, **options)  # type: ignore[arg-type]
    assert both[1].tokens == alone[0].tokens
