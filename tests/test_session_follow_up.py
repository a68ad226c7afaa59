"""Which questions are about the turn before."""

from __future__ import annotations

import pytest
from cli_helpers import ScriptedModel

from nazx_cli.documents.document import Document
from nazx_cli.reading.library import Library
from nazx_cli.session.earlier import followed_turn, points_back
from nazx_cli.session.events import Reading
from nazx_cli.session.prompt import user_message
from nazx_cli.session.session import Session
from nazx_cli.session.state import History, Message, Turn


@pytest.mark.parametrize(
    "question",
    [
        "Why did he do that?",
        "Who is she?",
        "What happened to her?",
        "What made him angry?",
        "Who told her about it?",
        "Is that true?",
        "Who said that?",
        "and then what did they do",
        "What did her sister say?",
        "What is it made of?",
        "Tell me more about this.",
        "Why?",
        "And then?",
    ],
)
def test_a_pronoun_that_nothing_in_the_question_explains_points_back(question: str) -> None:
    assert points_back(question)


@pytest.mark.parametrize(
    "question",
    [
        "Why did the king sell his horse?",
        "what did assipattle do when he fell",
        "Where did Alice find it?",
        "How old was the boy when his father died?",
        "Why was Mr. Darcy rude to her?",
        "What did a miller's daughter say about them?",
        "Who was so rich that the king envied them?",
        "Who stole the tarts?",
        "What shows that Tom was scared?",
        "",
        "?!",
        "誰がパンを焼きましたか",
    ],
)
def test_a_pronoun_of_somebody_whom_the_question_names_does_not(question: str) -> None:
    assert not points_back(question)


def test_what_is_followed_is_the_last_turn_with_its_answer_as_it_was_shown() -> None:
    turns = [
        Turn(q, user_message(q), (), a, interrupted=False)
        for q, a in [("Who ruled?", "[1] The king."), ("Who baked?", "[2] The miller.")]
    ]
    history = History(tuple(turns))
    told = [Message("user", "Who baked?"), Message("assistant", "The miller.")]
    assert list(followed_turn("Why did he?", history)) == told
    assert list(followed_turn("Why did the cook sing?", history)) == []
    assert list(followed_turn("Why did he?", History())) == []


@pytest.mark.parametrize(
    ("asked", "followed"),
    [
        (["Who baked?", "Why?", "Why did he do that?"], 0),  # neither says of what
        (["Who baked?", "What was he wearing?"], 1),
        (["Why?", "And then?"], 1),  # nothing was said of anything
    ],
)
def test_a_turn_that_only_points_back_itself_is_not_what_is_followed(
    asked: list[str], followed: int
) -> None:
    history = History(tuple(Turn(each, user_message(each), (), "So.", False) for each in asked))
    said, _ = followed_turn("And who was it?", history)
    assert said.content == asked[followed]


def test_passages_for_what_points_back_are_looked_for_by_the_turn_before_too() -> None:
    """By models without a reading adapter too, whose prompts hold the turns themselves."""
    kinds = ("heron", "badger", "otter", "falcon")
    text = "\n\n".join(f"The {kind} sleeps. {'It rains in the hills. ' * 60}" for kind in kinds)
    lm = ScriptedModel(["In the den."] * 4, window=1200)
    library = Library.build([Document("animals.txt", text, "text")], lm.tokenizer)
    chat = Session(lm, library)  # type: ignore[arg-type]

    def read(question: str) -> str:
        events = list(chat.ask(question))
        return " ".join(p.text for e in events if isinstance(e, Reading) for p in e.passages)

    assert "otter" not in read("Why?")  # nothing was said: passages of the whole
    assert "otter" in read("Where does the otter sleep?")
    assert "otter" in read("Why?")
    assert "badger" in read("What about the badger?")
