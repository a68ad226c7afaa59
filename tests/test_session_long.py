"""Conversations that outgrow the window: old turns leave the prompt, recall brings them back."""

from __future__ import annotations

import pytest
from cli_helpers import ScriptedModel, make_tokenizer

from nazx_cli.documents.document import Document
from nazx_cli.reading.library import Library
from nazx_cli.session.events import Answer, Event, Notice, Reading
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings

BOOK = "\n\n".join(
    f"Chapter {n}. The heron bought an umbrella. " + "It rained. " * 12 for n in "ABCDEF"
)
FILLER = [f"Yes, number {n}: " + "the weather stays as it is today. " * 3 for n in range(40)]


def long_session(
    *, window: int | None = 1400, kind: str = "windowed", book: str = "", **settings: object
) -> tuple[Session, ScriptedModel]:
    """A session whose first turn, about a cat, has left the prompt."""
    lm = ScriptedModel(
        ["A fine name for a cat.", *FILLER],
        window=window,
        kind=kind,
        reads_resident=kind == "inattention",
    )
    library = None
    if book:
        library = Library.build([Document("book.txt", book, "text")], lm.tokenizer)
    session = Session(lm, library, SessionSettings(max_tokens=64, **settings))  # type: ignore[arg-type]
    list(session.ask("My cat is called Marzipan, you know."))
    while not session.state.history.left_out:
        list(session.ask("And the sky tomorrow?"))
        assert len(session.turns) < 30
    return session, lm


def ask(session: Session, question: str) -> tuple[list[Event], Answer]:
    events = list(session.ask(question))
    assert isinstance(events[-1], Answer)
    return events, events[-1]


@pytest.mark.parametrize("kind", ["windowed", "full"])
def test_a_turn_that_was_left_out_is_found_again(kind: str) -> None:
    session, lm = long_session(kind=kind)
    assert "Marzipan" not in lm.prompts[-1]
    events, answer = ask(session, "What is my cat called?")
    assert [p.document for p in answer.sources] == ["turn 1"]
    assert answer.sources[0].text == (
        "Question: My cat is called Marzipan, you know.\n\nAnswer: A fine name for a cat."
    )
    assert (answer.mode, [e.mode for e in events if isinstance(e, Reading)]) == (
        "recall",
        ["recall"],
    )
    prompt = lm.prompts[-1]
    assert "Earlier in this conversation:\n\n[1] Question: My cat is called Marzipan" in prompt
    assert prompt.endswith("What is my cat called?<|im_end|>\n<|im_start|>assistant\n")
    assert len(lm.tokenizer.encode_markup(prompt)) + 64 <= 1400


def test_a_question_about_nothing_of_old_brings_no_old_turn() -> None:
    session, lm = long_session()
    for question in ("Where do penguins breed?", "Summarize.", "And what is the answer to that?"):
        events, answer = ask(session, question)
        assert (answer.mode, answer.sources) == ("none", ())
        assert not [e for e in events if isinstance(e, Reading)]
        assert "Earlier in this conversation" not in lm.prompts[-1]


def test_the_notice_says_how_many_turns_left_and_that_they_are_searched() -> None:
    lm = ScriptedModel(list(FILLER), window=1400)
    session = Session(lm, settings=SessionSettings(max_tokens=64))
    told: list[str] = []
    for _ in range(20):
        told += [e.text for e in session.ask("And the sky tomorrow?") if isinstance(e, Notice)]
    assert 1 <= len(told) <= 8
    assert f"first {session.state.history.left_out} turns are left out" in told[-1]
    assert "searched" in told[-1]
    assert len(session.turns) == 20


def test_turns_are_ranked_among_the_passages_of_documents() -> None:
    session, lm = long_session(book=BOOK * 4)
    _, answer = ask(session, "What is the name of my cat, Marzipan or what?")
    assert "turn 1" in {p.document for p in answer.sources}
    assert "Passages from turn 1:" in lm.prompts[-1] or "Earlier in this" in lm.prompts[-1]
    _, answer = ask(session, "What did the heron buy?")
    assert {p.document for p in answer.sources} == {"book.txt"}


@pytest.mark.parametrize("question", ["Summarize the book.", "What are the main themes?"])
def test_a_question_about_the_whole_draws_on_the_documents_alone(question: str) -> None:
    session, lm = long_session(book=BOOK * 4)
    _, answer = ask(session, question)
    assert {p.document for p in answer.sources} == {"book.txt"}
    assert "These passages are drawn from the whole text" in lm.prompts[-1]


def test_only_turns_with_a_word_of_the_question_come_back_beside_documents() -> None:
    lm = ScriptedModel(["The ship sailed the sea."] * 40, window=1400)
    book = "\n\n".join(f"Page {n}. The king fed his cat. " + "It rained. " * 12 for n in range(30))
    library = Library.build([Document("book.txt", book, "text")], lm.tokenizer)
    session = Session(lm, library, SessionSettings(max_tokens=64))
    list(session.ask("My boat is called Nellie."))
    while session.state.history.left_out < 3:
        list(session.ask("Did the ship sail over the sea?"))
    _, answer = ask(session, "On which ocean was the boat?")  # a ship is no boat
    assert {p.document for p in answer.sources} - {"book.txt"} == {"turn 1"}


def test_a_short_document_is_given_whole_beside_an_old_turn() -> None:
    book = "The heron bought an umbrella for her cat."
    session, lm = long_session(book=book)
    _, answer = ask(session, "What is my cat called, and what did the heron buy?")
    assert [p.document for p in answer.sources] == ["book.txt", "turn 1"]
    assert book in lm.prompts[-1] and "Marzipan" in lm.prompts[-1]


def test_resident_documents_stay_while_ctx_leaves_turns_out() -> None:
    tokens = len(make_tokenizer().encode(BOOK))
    session, lm = long_session(window=None, kind="inattention", book=BOOK, ctx=tokens + 1400)
    _, answer = ask(session, "What is my cat called?")
    assert (answer.mode, [p.document for p in answer.sources]) == ("resident", ["turn 1"])
    assert "Earlier in this conversation" in lm.prompts[-1]
    context = session.context
    assert context is not None
    assert len(context) - len(context.live_ids) == tokens
    assert len(context) <= tokens + 1400
    _, answer = ask(session, "What did the heron buy?")
    assert (answer.mode, answer.sources) == ("resident", ())


def test_reading_every_block_leaves_old_turns_out_and_does_not_say_otherwise() -> None:
    session, _ = long_session(book="The heron bought an umbrella.", read="all")
    _, answer = ask(session, "What is my cat called?")
    assert {p.document for p in answer.sources} == {"book.txt"}


def test_usage_counts_the_turns_left_out() -> None:
    session, _ = long_session()
    usage = session.usage()
    assert usage.left_out == session.state.history.left_out > 0
    assert usage.documents == ()
    assert usage.window_used < 1400 == usage.window
    session.clear()
    assert session.usage().left_out == 0
    session.undo()
    assert session.usage() == usage


def test_a_larger_ctx_brings_turns_back_into_the_prompt() -> None:
    session, lm = long_session(window=6000, ctx=1400)
    session.set_parameter("ctx", "none")
    assert session.usage().left_out == 0
    list(session.ask("So?"))
    assert "My cat is called Marzipan" in lm.prompts[-1]


def test_turns_become_documents_once() -> None:
    session, _ = long_session()
    list(session.ask("What is my cat called?"))
    first = session._answerer._earlier.library(session.state.history)
    list(session.ask("What is my cat called again?"))
    second = session._answerer._earlier.library(session.state.history)
    assert first is not None and second is not None
    assert second.documents[: len(first.documents)] == first.documents


def test_passages_of_a_document_that_was_taken_out_leave_the_prompt() -> None:
    lm = ScriptedModel(["An umbrella.", "Yes.", "Yes.", "Yes."], window=1400)
    library = Library.build([Document("book.txt", BOOK, "text")], lm.tokenizer)
    work = Session(lm, library, SessionSettings(max_tokens=64))
    list(work.ask("What did the heron buy?"))
    list(work.ask("Really, the heron?"))
    assert "It rained" in lm.prompts[1]
    work.drop(1)
    list(work.ask("Are you sure?"))
    assert "It rained" not in lm.prompts[2]
    assert "user\nWhat did the heron buy?" in lm.prompts[2]
    work.undo()
    work.undo()
    assert work.state.history.without_passages < 2


def test_passages_of_uneven_length_are_cut_down_until_they_fit() -> None:
    lm = ScriptedModel(["The ship sailed the sea."] * 40, window=1400)
    book = "\n\n".join(
        f"Page {n}. A boat lay on the ocean. " + "It rained. " * 12 for n in range(30)
    )
    library = Library.build([Document("book.txt", book, "text")], lm.tokenizer)
    session = Session(lm, library, SessionSettings(max_tokens=64))
    while not session.state.history.left_out:
        _, answer = ask(session, "Did the ship sail over the sea?")
        assert answer.sources
        assert len(lm.tokenizer.encode_markup(lm.prompts[-1])) + 64 <= 1400
