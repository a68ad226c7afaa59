"""The form of cited answers: written and read by the same module."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nazx_cli.session.citation import NOT_SAID, Cited, is_open, parse, write


@pytest.mark.parametrize(
    ("answer", "want"),
    (
        ("[2] The gryphon.", Cited(2, "The gryphon.", False)),
        (" [12]  A pig.\n", Cited(12, "A pig.", False)),
        ("The gryphon.", Cited(None, "The gryphon.", False)),
        ("The document does not say.", Cited(None, NOT_SAID, True)),
        ("the document does not say", Cited(None, "the document does not say", True)),
        ("[3] The document does not say.", Cited(None, NOT_SAID, True)),
        ("[1]", Cited(1, "", False)),
        ("[ 4 ] Yes.", Cited(4, "Yes.", False)),
        ("", Cited(None, "", False)),
        ("[one] Yes.", Cited(None, "[one] Yes.", False)),
        ("[1] [2] Both.", Cited(1, "[2] Both.", False)),
        ("[99999] Yes.", Cited(None, "[99999] Yes.", False)),
        ("See [2].", Cited(None, "See [2].", False)),
    ),
)
def test_answers_are_taken_apart(answer: str, want: Cited) -> None:
    assert parse(answer) == want


@given(st.integers(1, 9999), st.text())
def test_what_is_written_is_read_again(number: int, text: str) -> None:
    text = text.strip()
    found = parse(write(text, number))
    assert found.text == text
    assert found.number == (None if found.says_not else number)


@given(st.text())
def test_any_text_is_an_answer(text: str) -> None:
    assert parse(text).text in text


@pytest.mark.parametrize("beginning", ("", " ", "[", "[1", "[12]", " [12] "))
def test_an_answer_is_held_back_while_its_citation_is_incomplete(beginning: str) -> None:
    assert is_open(beginning)


@pytest.mark.parametrize("beginning", ("T", "[a", "[12] T", "[12345", "The [1]"))
def test_no_answer_is_held_back_for_longer(beginning: str) -> None:
    assert not is_open(beginning)
