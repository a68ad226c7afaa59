"""The best passages of many, against a slow look at each of them."""

from __future__ import annotations

import math
import random
from itertools import combinations, pairwise

import pytest
from reading_helpers import library_of

from nazx_cli.reading import recall
from nazx_cli.reading.library import Library
from nazx_cli.reading.recall import question_terms, rank
from nazx_cli.reading.words import kindred_stems

VOCABULARY = [
    "the",
    "and",
    "was",
    "said",
    "say",
    "king",
    "queen",
    "crown",
    "old",
    "man",
    "men",
    "fox",
    "wolf",
    "walked",
    "trial",
    "judge",
]


def texts_of(rng: random.Random) -> list[str]:
    """Documents with many equal passages, some empty of what is asked for."""
    filler = "Nothing of note took place that winter. " * 9
    pool = [" ".join(rng.choices(VOCABULARY, k=rng.randrange(60))) + ". " for _ in range(6)]
    pool += [filler, filler]
    counts = [rng.choice((1, 2, 7, 20, 60)) for _ in range(rng.randrange(1, 6))]
    return ["\n\n".join(rng.choices(pool, k=count)) for count in counts]


def oracle(library: Library, question: str) -> list[float]:
    """The scores by the formula that stands at the top of ``recall``, passage by passage."""
    cuts, bounds = library.cuts.tolist(), library.bounds.tolist()
    count = len(cuts) - 1
    document = [sum(bound <= cut for bound in bounds) for cut in cuts[:-1]]
    norm = [0.8 * (0.25 + 0.75 * (b - a) * count / cuts[-1]) for a, b in pairwise(cuts)]

    def held(places: list[int]) -> list[int]:
        return [sum(a <= at < b for at in places) for a, b in pairwise(cuts)]

    def spread(counts: list[int]) -> list[float]:
        return [
            counts[i]
            + sum(
                0.5 * math.exp(-abs(i - j) / 3) * counts[j]
                for j in range(max(0, i - 7), min(count, i + 8))
                if j != i and document[i] == document[j]
            )
            for i in range(count)
        ]

    def rarity(counts: list[int]) -> float:
        some = sum(each > 0 for each in counts)
        return math.log1p((count - some + 0.5) / (some + 0.5))

    scores = [0.0] * count
    found: list[tuple[list[int], float]] = []

    def add(spreads: list[float], weight: float) -> None:
        for i, each in enumerate(spreads):
            scores[i] += weight * each * 1.8 / (each + norm[i])

    for term in question_terms(question):
        own = sorted({int(at) for stem in term.stems for at in library.matcher.find(stem)})
        stems = sorted(kindred_stems(term.stems)) if term.has_content else []
        kin = [held(library.matcher.find(stem).tolist()) for stem in stems]
        kindred = [0.0] * count
        for each in kin:
            add(spread(each), 0.05 * rarity(each))
            kindred = [a + b for a, b in zip(kindred, spread(each), strict=True)]
        having = held(own) if own or not kin else [sum(each) for each in zip(*kin, strict=True)]
        weight = term.weight * rarity(having)
        add([a + 0.2 * b for a, b in zip(spread(held(own)), kindred, strict=True)], weight)
        found.append((own, weight))
    for (one, weight), (two, other) in combinations([each for each in found if each[0]], 2):
        few, many = (one, two) if len(one) <= len(two) else (two, one)
        for i in range(count):
            gaps = [min(abs(at - b) for b in many) for at in few if cuts[i] <= at < cuts[i + 1]]
            if gaps and min(gaps) <= 10:
                scores[i] += min(weight, other) / (1 + min(gaps) / 5)
    return scores


@pytest.mark.parametrize("seed", range(6))
def test_the_best_are_those_of_a_slow_look_at_all(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    library = library_of(*texts_of(rng))
    monkeypatch.setattr(recall, "_FEWEST_BLOCKS", 0)
    monkeypatch.setattr(recall, "_FEWEST", rng.choice((0, 2)))
    monkeypatch.setattr(recall, "_ALONE", rng.choice((0, 1, 32)))
    monkeypatch.setattr(recall, "_FIRST", 1)
    for _ in range(3):
        question = " ".join(rng.sample([*VOCABULARY, "absent"], rng.randrange(1, 6)))
        scores = oracle(library, question)
        whole = rank(library, question)
        assert whole.scores.tolist() == pytest.approx(scores, abs=1e-9)
        for most in (1, 2, 7, len(scores), len(scores) + 3):
            best = rank(library, question, most)
            assert best.order.tolist() == whole.order.tolist()[:most], (question, most)
            assert best.scores[best.order].tolist() == whole.scores[best.order].tolist()
