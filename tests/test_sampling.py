"""Choosing tokens: every filter against a plain sort, and reproducible draws."""

from __future__ import annotations

import math
import random

import pytest
import torch

from nazx_cli.engine.sampler import Sampler, distribution, penalize
from nazx_cli.engine.sampling import Sampling
from nazx_cli.errors import NazxError, UsageError


def _slow_distribution(logits: list[float], s: Sampling) -> list[float]:
    """Filters one after the other on a sorted list of (probability, index)."""
    top = max(logits)
    weights = [math.exp((x - top) / s.temperature) for x in logits]
    ranked = sorted(((w, -i) for i, w in enumerate(weights)), reverse=True)
    if s.top_k:
        ranked = ranked[: s.top_k]
    total = sum(w for w, _ in ranked)
    ranked = [(w / total, i) for w, i in ranked]
    ranked = [(p, i) for p, i in ranked if p >= s.min_p * ranked[0][0]]
    total = sum(p for p, _ in ranked)
    kept, mass = [], 0.0
    for p, i in ranked:
        if mass < s.top_p or not kept:
            kept.append((p, i))
        mass += p / total
    total = sum(p for p, _ in kept)
    out = [0.0] * len(logits)
    for p, i in kept:
        out[-i] = p / total
    return out


@pytest.mark.parametrize("seed", range(30))
def test_filters_equal_the_slow_ones(seed: int) -> None:
    rng = random.Random(seed)
    logits = [rng.gauss(0, 3) for _ in range(rng.choice((1, 2, 7, 50)))]
    s = Sampling(
        temperature=rng.choice((0.1, 0.7, 1.0, 3.0)),
        top_k=rng.choice((0, 1, 5, 1000)),
        top_p=rng.choice((0.0, 0.3, 0.9, 1.0)),
        min_p=rng.choice((0.0, 0.05, 1.0)),
    )
    got = distribution(torch.tensor(logits), s)
    want = torch.tensor(_slow_distribution(logits, s), dtype=torch.float64)
    assert torch.allclose(got, want, atol=1e-6)


def test_zero_temperature_takes_the_likeliest() -> None:
    logits = torch.randn(100, generator=torch.Generator().manual_seed(1))
    for top_k in (0, 1, 7):
        assert Sampler(Sampling(top_k=top_k)).choose(logits) == int(logits.argmax())


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    sampler = Sampler(Sampling(temperature=1.0, seed=5))
    counts = torch.zeros(4)
    for _ in range(4000):
        counts[sampler.choose(logits)] += 1
    assert torch.allclose(counts / 4000, logits.softmax(0), atol=0.03)


def test_the_same_seed_gives_the_same_draws_and_another_seed_others() -> None:
    logits = torch.zeros(1000)
    runs = {}
    for seed in (1, 1, 2):
        sampler = Sampler(Sampling(temperature=1.0, seed=seed))
        runs.setdefault(seed, []).append([sampler.choose(logits) for _ in range(20)])
    assert runs[1][0] == runs[1][1] != runs[2][0]


def test_the_repeat_penalty_only_touches_recent_tokens() -> None:
    logits = torch.tensor([2.0, -2.0, 1.0])
    assert penalize(logits, [0, 1, 1], 2.0).tolist() == [1.0, -4.0, 1.0]
    assert penalize(logits, [], 2.0) is logits
    assert logits.tolist() == [2.0, -2.0, 1.0]


@pytest.mark.parametrize("value", (math.nan, math.inf))
@pytest.mark.parametrize("temperature", (0.0, 1.0))
def test_logits_that_are_no_numbers_end_the_answer(value: float, temperature: float) -> None:
    logits = torch.zeros(50)
    logits[7] = value
    with pytest.raises(NazxError, match="nazx verify"):
        Sampler(Sampling(temperature=temperature)).choose(logits)


def test_minus_infinity_only_rules_a_token_out() -> None:
    logits = torch.tensor([-math.inf, 0.0, 1.0])
    assert Sampler(Sampling()).choose(logits) == 2
    assert Sampler(Sampling(temperature=1.0, seed=1)).choose(logits) in (1, 2)


@pytest.mark.parametrize(
    "wrong",
    (
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"top_k": -1},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"repeat_penalty": 0.0},
        {"seed": -1},
    ),
    ids=lambda w: next(iter(w)),
)
def test_values_out_of_range_are_usage_errors(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="out of range"):
        Sampling(**wrong)  # type: ignore[arg-type]
