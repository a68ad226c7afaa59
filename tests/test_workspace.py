"""Undo, branches, turns and what is refused in a workspace."""

from __future__ import annotations

import pytest
from cli_helpers import make_tokenizer
from workspace_helpers import add, answer, names, workspace

from nazx_cli.documents.document import Document
from nazx_cli.errors import ContextOverflowError, UsageError
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.session.events import Notice, Reading
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings
from nazx_cli.session.state import State


def test_every_edit_can_be_undone_and_redone_to_the_very_state() -> None:
    work = workspace("One. " * 9, "Two. " * 9, "Three. " * 9)
    answer(work.ask("Who?"))
    states = [work.state]
    edits = {
        "dropped Two.txt": lambda: work.drop(2),
        "moved Three.txt from 2 to 1": lambda: work.move(2, 1),
        "the last turn": lambda: answer(work.ask("And then?")),
        "set temperature to 0.5": lambda: work.set_parameter("temperature", "0.5"),
        "set the system message": lambda: work.set_system("Be brief."),
        "the new answer": lambda: answer(list(work.regen())),
        "took back the last turn": work.take_back,
        "cleared the conversation": work.clear,
    }
    for edit in edits.values():
        edit()
        states.append(work.state)
    assert len({id(state) for state in states}) == len(states)
    for what, state in zip(reversed(edits), states[-2::-1], strict=True):
        assert work.undo() == what
        assert work.state is state
    for what, state in zip(edits, states[1:], strict=True):
        assert work.redo() == what
        assert work.state is state
    with pytest.raises(UsageError, match="nothing to redo"):
        work.redo()


def test_an_edit_after_undo_leaves_nothing_to_redo() -> None:
    work = workspace("One.", "Two.")
    work.drop(1)
    work.undo()
    work.move(1, 2)
    with pytest.raises(UsageError, match="nothing to redo"):
        work.redo()
    assert names(work) == ["Two.txt", "One.txt"]


def test_forks_share_their_parts_and_go_their_own_ways() -> None:
    work = workspace("One.", "Two.")
    answer(work.ask("Who?"))
    before = work.state
    work.fork("idea")
    assert (work.branch, work.state) == ("idea", before)
    work.drop(1)
    answer(work.ask("And now?"))
    assert work.branches["main"] is before
    assert work.branches["idea"].documents[0] is before.documents[1]
    work.switch("main")
    assert work.state is before
    assert names(work) == ["One.txt", "Two.txt"]
    work.switch("idea")
    assert [turn.question for turn in work.turns] == ["Who?", "And now?"]
    assert work.undo() == "the last turn"
    assert work.undo() == "dropped One.txt"
    assert work.state is before


def test_branch_names_that_are_taken_unknown_or_unfit_are_refused() -> None:
    work = workspace()
    work.fork("idea")
    for name in ("idea", "main", "", " x", "a\nb", "x" * 100):
        with pytest.raises(UsageError):
            work.fork(name)
    with pytest.raises(UsageError, match="no branch 'other'"):
        work.switch("other")
    assert list(work.branches) == ["main", "idea"]


@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_number_out_of_range_names_the_range(number: int) -> None:
    work = workspace("One.", "Two.")
    for edit in (work.drop, work.reload, lambda n: work.move(1, n), lambda n: work.swap(n, "x")):
        with pytest.raises(UsageError, match="choose 1 to 2"):
            edit(number)
    assert names(work) == ["One.txt", "Two.txt"]
    with pytest.raises(UsageError, match="no documents"):
        workspace().drop(1)


def test_documents_beyond_ctx_are_refused_and_change_nothing() -> None:
    work = workspace("One.", settings=SessionSettings(ctx=300, max_tokens=3))
    state = work.state
    with pytest.raises(ContextOverflowError, match="--ctx allows 300"):
        add(work, "Two. " * 100)
    assert work.state is state
    assert list(work.branches.values()) == [state]
    answer(work.ask("Who?"))


def test_regen_replaces_the_last_answer_and_says_where_it_will_be_the_same() -> None:
    work = workspace("One.")
    answer(work.ask("Who?"))
    first = work.turns[0]
    events = list(work.regen())
    assert next(e.text for e in events if isinstance(e, Notice)).startswith("at temperature 0")
    assert [turn.answer for turn in work.turns] == [first.answer]
    assert work.turns[0] is not first
    work.set_parameter("temperature", "1.5")
    assert not [e for e in work.regen() if isinstance(e, Notice)]
    assert len(work.turns) == 1
    work.set_parameter("seed", "3")
    assert not [e for e in work.regen() if isinstance(e, Notice)]
    assert [e for e in work.regen() if isinstance(e, Notice)]


@pytest.mark.parametrize("change", ("documents", "settings"))
def test_regen_does_not_say_that_the_answer_is_the_same_where_something_changed(
    change: str,
) -> None:
    work = workspace("One.")
    answer(work.ask("Who?"))
    if change == "documents":
        add(work, "The fox ran.")
    else:
        work.set_system("Be brief.")
    assert not [e for e in work.regen() if isinstance(e, Notice)]
    work.undo()
    work.undo()
    assert [e for e in work.regen() if isinstance(e, Notice)]


def test_regen_that_is_stopped_before_its_first_word_keeps_the_old_turn() -> None:
    work = workspace("One.")
    answer(work.ask("Who?"))
    state = work.state
    events = work.regen()
    while not isinstance(next(events), Reading):
        pass
    assert work.state is not state
    events.close()
    assert work.state is state
    assert work.undo() == "the last turn"


def test_taking_a_turn_back_gives_its_question() -> None:
    work = workspace("One.")
    answer(work.ask("Who?"))
    answer(work.ask("Why?"))
    assert work.take_back() == "Why?"
    assert [turn.question for turn in work.turns] == ["Who?"]
    work.take_back()
    with pytest.raises(UsageError, match="no turn yet"):
        work.take_back()
    with pytest.raises(UsageError, match="no turn yet"):
        list(work.regen())


def test_clearing_keeps_the_documents_and_can_be_undone() -> None:
    work = workspace("One.")
    work.clear()
    answer(work.ask("Who?"))
    work.clear()
    assert (work.turns, names(work)) == ((), ["One.txt"])
    assert work.undo() == "cleared the conversation"
    assert len(work.turns) == 1


def test_a_snapshot_restores_branches_documents_and_watches() -> None:
    work = workspace("One.", "Two.")
    answer(work.ask("Who?"))
    work.fork("idea")
    work.drop(1)
    saved = work.snapshot()
    again = Session(work.lm)
    again.restore(*saved)
    assert again.snapshot() == saved
    assert again.branch == "idea"
    assert names(again) == ["Two.txt"]
    with pytest.raises(UsageError, match="nothing to undo"):
        again.undo()
    answer(again.ask("And?"))


def test_an_interrupted_turn_is_one_step_too() -> None:
    work = workspace("One.", settings=SessionSettings(max_tokens=40))
    before = work.state
    events = work.ask("Who?")
    for _ in range(4):
        next(events)
    events.close()
    assert [turn.interrupted for turn in work.turns] == [True]
    assert not work.answering
    assert work.undo() == "the last turn"
    assert work.state is before


def test_states_hold_nothing_but_what_they_are() -> None:
    tokenizer = make_tokenizer()
    part = TokenizedDocument.build(Document("a.txt", "One.", "text"), tokenizer)
    same = TokenizedDocument.build(Document("a.txt", "One.", "text"), tokenizer)
    assert (
        part.key
        == same.key
        != TokenizedDocument.build(Document("b.txt", "One.", "text"), tokenizer).key
    )
    assert State((part,)) == State((part,))


def test_a_turn_asked_of_the_session_itself_can_be_undone() -> None:
    work = workspace("One.")
    list(work.ask("Who?"))
    assert len(work.branches["main"].history.turns) == 1
    work.drop(1)
    assert work.undo() == "dropped One.txt"
    assert work.undo() == "the last turn"
    assert work.turns == ()
