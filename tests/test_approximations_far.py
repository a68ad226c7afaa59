"""Approximations of what a far memory attends to, held to loops in float64."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_helpers import run_nazx
from far_models import (
    AROUND,
    GRAM,
    RANK,
    base_model,
    far_tensors,
    ids_of,
    with_memory,
    write_memory,
)
from numpy.typing import NDArray
from reading_helpers import alice_text
from test_approximations import by_landmarks, by_levels
from test_far_memory import Oracle, error
from torch import Tensor

from nazx_cli.errors import UsageError
from nazx_cli.evaluation.approximations import approximation_of
from nazx_cli.evaluation.approximations.base import MASS, READ
from nazx_cli.evaluation.approximations.far import approximated, far_memory, far_sizes, keys_of

Array = NDArray[np.float64]


class Vectors(Oracle):
    """Queries and keys of the formula, each as one vector; what is met is chosen from outside."""

    def keys(self, far: list[int]) -> Array:
        keys, rows = self.far["far.keys"], []
        for p in range(len(far) - 1):
            parts = []
            for back in range(GRAM):
                part = torch.zeros(RANK, dtype=torch.float64)
                if p >= back:
                    part = keys[back] @ self._embedded(far[p - back])
                    part = part / part.norm()
                parts.append(part)
            near = far[max(0, p - AROUND) : p + AROUND + 1]
            spread = keys[-1] @ sum(self._embedded(token) for token in near)
            rows.append(torch.cat([*parts, spread / math.sqrt(2 * AROUND + 1)]))
        return np.asarray(torch.stack(rows))

    def query(self, live: list[int]) -> Array:
        queries, state = self.far["far.queries"], self.far["far.state"]
        h = self._unit(self.reference.final(live)[-1])
        parts = [
            state[back] @ h
            + (queries[back] @ self._embedded(live[-1 - back]) if back < len(live) else 0)
            for back in range(GRAM)
        ]
        spoken = queries[-1] @ sum(self._embedded(token) for token in live[-64:]) / (8 * 48**0.5)
        return np.asarray(torch.cat([*parts, spoken + state[-1] @ h]))

    def met(self, live: list[int], far: list[int], scores: dict[int, float]) -> Tensor:
        """(V,) probabilities where those far positions are met at those scores."""
        h = self._unit(self.reference.final(live)[-1])
        base, growth = self.far["far.bias"].tolist()
        kept = math.exp(float(self.far["far.null"] @ h) + base + growth * math.log(len(far)))
        total = kept + sum(map(math.exp, scores.values()))
        out: Tensor = self.reference.logits(live)[-1].softmax(-1) * (kept / total)
        for p, each in scores.items():
            out[far[p + 1]] += math.exp(each) / total
        return out


def by_slots(query: Array, keys: Array, count: int) -> dict[int, float]:
    """Scores of all keys, by the mean that each has become part of."""
    latest = count - count // 2
    pool: list[tuple[Array, list[int]]] = []
    for left in range(len(keys) - latest):
        if len(pool) < count // 2:
            pool.append((keys[left], [left]))
            continue
        near = min(range(len(pool)), key=lambda s: np.linalg.norm(pool[s][0] - keys[left]))
        mean, mine = pool[near]
        pool[near] = (mean * len(mine) + keys[left]) / (len(mine) + 1), [*mine, left]
    found = {p: float(query @ keys[p]) for p in range(max(0, len(keys) - latest), len(keys))}
    return found | {p: float(query @ mean) for mean, mine in pool for p in mine}


@pytest.mark.parametrize(
    ("text", "count"),
    (
        ("landmark:7:2", 2),
        ("landmark:7:2", 50),
        ("landmark:16:1", 160),
        ("hip:90", 330),
        ("hip-sure:60", 330),
        ("slots:2", 40),
        ("slots:9", 70),
        ("slots:300", 40),
    ),
)
def test_a_far_memory_meets_what_the_definition_says(tmp_path: Path, text: str, count: int) -> None:
    rng, tensors = random.Random(count), far_tensors()
    lm, oracle = with_memory(tmp_path / "m", "llama", tensors), Vectors("llama", tensors)
    far, live, made = ids_of(rng, count), ids_of(rng, 5), approximation_of(text)
    name, *settings = text.split(":")
    numbers = [*map(int, settings)]
    keys = oracle.keys(far)
    assert np.abs(keys_of(far_memory(lm.decoder), torch.tensor(far)).numpy() - keys).max() < 1e-5
    with approximated(lm.decoder, made):
        found = lm.logits(live, far)
    for at in range(1, len(live) + 1):
        query = oracle.query(live[:at])
        if name == "slots":
            scores = by_slots(query, keys, *numbers)
        else:
            choose = by_landmarks if name == "landmark" else by_levels
            more = [True] if name == "hip-sure" else []
            met = choose(query, keys, len(keys) - 1, *numbers, *more)
            scores = {p: float(query @ keys[p]) for p in met}
        assert error(found[at - 1], oracle.met(live[:at], far, scores)) < 2e-5
    assert made.figures[READ] > 0
    exact = lm.logits(live, far)  # and it is as it was
    assert error(exact[-1], oracle.row(live, far)) < 2e-5
    if name != "slots":
        assert 0 < made.figures[MASS] <= 1 + 1e-6


def test_what_a_far_memory_holds_are_ids_and_what_stands_for_keys(tmp_path: Path) -> None:
    memory = far_memory(with_memory(tmp_path / "m", "llama", far_tensors()).decoder)
    sizes, key = far_sizes(memory, 2), (GRAM + 1) * RANK * 2
    assert (sizes.position, sizes.key) == (4, key)
    assert approximation_of("landmark:64:8").held(sizes, 6400) == 4 * 6400 + 100 * key
    bounded = approximation_of("slots:8").held(sizes, 10**6)
    assert bounded == 4 * 4 + 4 * (key + 2 * memory.config.vocab_size) + 8 * 4


def test_what_is_no_far_memory_of_ids_is_refused(tmp_path: Path) -> None:
    lm = with_memory(tmp_path / "m", "llama", far_tensors())
    with (
        pytest.raises(UsageError, match="star"),
        approximated(lm.decoder, approximation_of("star")),
    ):
        lm.logits([1, 2], [3, 4, 5])
    lm.logits([1, 2], [3, 4, 5])  # the memory is back
    lm.decoder.far = None
    with pytest.raises(UsageError, match="this model has none"):
        far_memory(lm.decoder)


def test_the_command_sets_them_beside_the_whole_memory(tmp_path: Path) -> None:
    memory, model = write_memory(tmp_path, far_tensors()), base_model(tmp_path)
    book = tmp_path / "book.txt"
    book.write_text(alice_text()[:4000])
    command = ["eval", str(book), "-m", str(model), "--adapter", str(memory), "--before", "400"]
    command += ["--ctx", "6", "--limit", "2", "--dtype", "float32", "--perplexity"]
    sources = ["--before-from", "none", "--before-from", "own"]
    ways = ["--approximation", "landmark:500:1", "--approximation", "slots:4"]
    out, err, code = run_nazx(*command, *sources, *ways, "--json")
    assert code == 0, err
    told = json.loads(out)
    names = [each["model"].split(", ", 1)[1] for each in told["perplexity"]]
    assert names == [
        "exact, nothing before",
        "exact, 400 tokens before",
        "landmark:500:1, 400 tokens before",
        "slots:4, 400 tokens before",
    ]
    _, whole, all_of_it, few = told["costs"]
    assert whole["held"] == 1600 and all_of_it["held"] == 1600 and whole["length"] == 400
    assert all_of_it["figures"]["kl"] == pytest.approx(0, abs=1e-6)
    assert all_of_it["figures"]["keys_read"] == 1 and few["figures"]["kl"] > 1e-4
    _, err, code = run_nazx(*command, "--approximation", "star")
    assert code == 2 and "star leaves a far memory as it is" in err
