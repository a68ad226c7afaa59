"""Times and counts as the chat says them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nazx_cli.ui.phrases import ago, counted, duration, shortened


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0004, "<1 ms"),
        (0.0031, "3 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (125, "2 min 5 s"),
    ],
)
def test_durations_have_the_unit_that_suits_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (3600, "1 h ago"),
        (172799, "47 h ago"),
        (172800, "2 days ago"),
    ],
)
def test_ages_have_the_unit_that_suits_them(seconds: int, said: str) -> None:
    assert ago(timedelta(seconds=seconds)) == said


def test_one_is_singular() -> None:
    assert [counted(n, "turn") for n in (0, 1, 1200)] == ["0 turns", "1 turn", "1,200 turns"]


def test_a_long_name_keeps_its_end_which_tells_files_apart() -> None:
    assert shortened("book.txt", 12) == "book.txt"
    assert shortened("/home/me/books/long/book.txt", 14) == "…long/book.txt"
