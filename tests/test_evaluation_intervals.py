"""The bootstrap against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from nazx_cli.evaluation.intervals import bootstrap_means, estimate


def test_the_spread_is_the_closed_form_where_documents_are_alike_in_size() -> None:
    generator = np.random.default_rng(3)
    by_document = generator.random(40)
    scores = np.repeat(by_document, 5)
    names = [f"d{i // 5}" for i in range(200)]
    means, count = bootstrap_means(scores, names, draws=20_000)
    assert count == 40
    # the variance of a mean of 40 draws with replacement
    assert means.std() == pytest.approx(by_document.std() / np.sqrt(40), rel=0.03)
    assert means.mean() == pytest.approx(by_document.mean(), abs=0.005)


def test_questions_of_one_document_do_not_count_as_independent() -> None:
    scores = [0.0] * 50 + [1.0] * 50
    two = estimate(scores, ["a"] * 50 + ["b"] * 50)
    many = estimate(scores, [str(i) for i in range(100)])
    assert (two.low, two.high) == (0.0, 1.0), "each of both documents alone has chance 1/4"
    assert many.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.02)
    assert many.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.02)
    assert two.mean == many.mean == 0.5


def test_large_documents_weigh_by_their_questions() -> None:
    means, _ = bootstrap_means([0.0] * 9 + [1.0], ["a"] * 9 + ["b"], draws=8000)
    values, counts = np.unique(np.round(means, 6), return_counts=True)
    assert values.tolist() == [0.0, 0.1, 1.0], "a twice, one of each, b twice"
    assert (counts / 8000).tolist() == pytest.approx([0.25, 0.5, 0.25], abs=0.02)


def test_one_document_has_no_interval_and_seeds_decide_draws() -> None:
    one = estimate([0.2, 0.4], ["a", "a"])
    assert (one.mean, one.low, one.high, one.documents) == (pytest.approx(0.3), None, None, 1)
    alike = estimate([0.0] * 5, list("abcde"))
    assert (alike.mean, alike.low, alike.high) == (0, None, None), "0 of 5 is not certainly 0"
    scores, names = [0.1, 0.5, 0.9, 0.3], ["a", "b", "c", "d"]
    assert estimate(scores, names, 1) == estimate(scores, names, 1)
    again = estimate(scores[::-1], names[::-1], 1)
    assert again.low == pytest.approx(estimate(scores, names, 1).low)
