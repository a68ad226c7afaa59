"""Answering as a function of a state, and what a session makes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from cli_helpers import ScriptedModel, make_tokenizer
from store_helpers import full_state
from workspace_helpers import add, names, workspace

from nazx_cli.documents.document import Document
from nazx_cli.errors import UsageError
from nazx_cli.names import READ_MODES
from nazx_cli.reading.plan import mode_for
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.session.answering import Answerer
from nazx_cli.session.events import Answer, Delta, Event
from nazx_cli.session.saving.records import state_record
from nazx_cli.session.settings import SessionSettings
from nazx_cli.session.state import State


def next_state(
    answerer: Answerer, state: State, question: str, until: Callable[[Event], bool] | None = None
) -> list[State]:
    """The states that came of a question, the iterator closed where ``until`` is true."""
    kept: list[State] = []
    events = answerer.answer(state, question, kept.append)
    for event in events:
        if until is not None and until(event):
            events.close()
    return kept


def test_each_answer_begins_from_the_state_that_is_given() -> None:
    answerer = Answerer(ScriptedModel(["One.", "Two.", "Three."]))  # type: ignore[arg-type]
    start = State()
    (first,) = next_state(answerer, start, "Who?")
    (second,) = next_state(answerer, first, "And?")
    (other,) = next_state(answerer, start, "Why?")
    assert start == State()
    assert [turn.answer for turn in second.history.turns] == ["One.", "Two."]
    assert second.history.turns[0] is first.history.turns[0]
    assert [(turn.question, turn.answer) for turn in other.history.turns] == [("Why?", "Three.")]


def test_what_was_said_is_kept_once_and_what_was_not_is_not() -> None:
    answerer = Answerer(ScriptedModel(["abcdef", "abc"]))  # type: ignore[arg-type]
    (cut,) = next_state(answerer, State(), "Who?", lambda event: isinstance(event, Delta))
    assert [(turn.answer, turn.interrupted) for turn in cut.history.turns] == [("a", True)]
    assert not answerer.answering
    whole: list[State] = []
    *_, last = answerer.answer(cut, "Who?", whole.append)
    assert isinstance(last, Answer)
    assert [turn.interrupted for turn in whole[0].history.turns] == [True, False]
    with pytest.raises(UsageError, match="empty"):
        next_state(answerer, cut, " ")
    assert len(whole) == 1


def test_answers_about_different_documents_do_not_mix() -> None:
    lm = ScriptedModel(["One."] * 4)
    documents = [
        TokenizedDocument.build(Document(f"{name}.txt", name, "text"), make_tokenizer())
        for name in ("The fox bought a lantern.", "The heron bought an umbrella.")
    ]
    answerer = Answerer(lm)  # type: ignore[arg-type]
    for chosen in ([0], [1], [0], []):
        state = State(tuple(documents[n] for n in chosen), settings=SessionSettings(max_tokens=9))
        next_state(answerer, state, "What was bought?")
        assert ["lantern" in lm.prompts[-1], "umbrella" in lm.prompts[-1]] == [
            n in chosen for n in (0, 1)
        ]


def test_an_edit_made_while_an_answer_waits_stays() -> None:
    work = workspace("One.")
    events = work.ask("Who?")
    next(events)
    add(work, "Two.")
    events.close()
    assert names(work) == ["One.txt", "Two.txt"]
    assert work.undo() == "read Two.txt"
    assert names(work) == ["One.txt"]


@pytest.mark.parametrize("reads_resident", [False, True])
def test_whether_a_model_attends_to_documents_is_told_by_the_mode(reads_resident: bool) -> None:
    for mode in READ_MODES:
        if mode == "resident" and not reads_resident:
            with pytest.raises(UsageError, match="not trained"):
                mode_for(mode, reads_resident)
            continue
        attends = reads_resident and mode in ("auto", "resident")
        assert mode_for(mode, reads_resident) == ("resident" if attends else mode)
    with pytest.raises(UsageError, match="no read mode"):
        mode_for("skim", reads_resident)


def test_saved_documents_turns_and_states_have_the_keys_they_always_had() -> None:
    state = full_state()
    assert [document.content_key for document in state.documents] == [
        "ef81ea1d4cdaa2de369efe212ed6f957",
        "df25fa5a149d14e97b5b86d7f3f60f29",
        "f686bf376241c29fe8d12af9401ed628",
        "f4395ebc0a18b0e474e43ba3923896ff",
        "b1df139f5615badc1ff68a6b9874c79d",
    ]
    assert [turn.content_key for turn in state.history.turns] == [
        "471a5b4155f1b3b989f24e51584d629d",
        "b216bc952c1151490fdaba4553db22ee",
    ]
    digest = hashlib.sha256(state_record(state)).hexdigest()
    assert digest == "91ef1bfe9b9630e6b19f0bd678148b81f071673e4782207b5202f137092b0123"
