"""After any edit the context is as if it were built afresh."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from workspace_helpers import add, answer, check_context, names, workspace

from nazx_cli.context.layouts import LAYOUTS
from nazx_cli.documents.document import Document
from nazx_cli.errors import UsageError
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.session.session import Session


def random_edit(work: Session, rng: random.Random) -> None:
    count = len(work.documents)
    number = rng.randint(1, max(1, count))
    kinds = ["add", "undo", "redo", "fork", "switch", "ask", "take back", "system"]
    kind = rng.choice(kinds + ["drop", "move", "swap"] * (2 if count else 0))
    if kind == "add":
        add(work, f"Text{rng.randrange(10**6)} " + "the fox and the heron " * rng.randint(1, 30))
    elif kind == "drop":
        work.drop(number)
    elif kind == "move":
        work.move(number, rng.randint(1, count))
    elif kind == "swap":
        text = f"Other{rng.randrange(10**6)} " + "a red umbrella " * rng.randint(1, 30)
        new = TokenizedDocument.build(Document("other.txt", text, "text"), work.lm.tokenizer)
        parts = (*work.documents[: number - 1], new, *work.documents[number:])
        work.set_documents(parts, "swapped")
    elif kind == "fork":
        work.fork(f"branch {len(work.branches)}")
    elif kind == "switch":
        work.switch(rng.choice(list(work.branches)))
    elif kind == "ask":
        answer(work.ask("Who bought it?"))
    elif kind == "system":
        work.set_system(rng.choice([None, "Be brief.", "Be kind."]))
    else:
        step = {"undo": work.undo, "redo": work.redo, "take back": work.take_back}[kind]
        with suppress(UsageError):
            step()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_after_any_edits_the_logits_are_those_of_a_context_built_afresh(layout: str) -> None:
    rng = random.Random(layout)
    work = workspace("One. " * 40, "Two. " * 60, layout=layout)
    answer(work.ask("Who?"))
    for _ in range(40):
        random_edit(work, rng)
        check_context(work)


@pytest.mark.parametrize("kind", ["inattention", "windowed"])
def test_after_any_edits_an_answer_is_that_of_a_new_session(kind: str) -> None:
    rng = random.Random(kind)
    work = workspace("One. " * 40, "Two. " * 60, kind=kind)
    for _ in range(12):
        for _ in range(3):
            random_edit(work, rng)
        fresh = Session(work.lm)
        fresh.restore({"main": work.state}, "main")
        expected = answer(fresh.ask("What was it?"))
        assert answer(work.ask("What was it?")) == expected
        work.undo()


def test_a_state_takes_no_part_twice_in_the_context() -> None:
    work = workspace("One. " * 50, "Two. " * 50, "Three. " * 50)
    answer(work.ask("Who?"))
    context = work.context
    assert context is not None
    calls: list[tuple[int, int]] = []
    delete = context.delete
    context.delete = lambda a, b: (calls.append((a, b)), delete(a, b))[1]  # type: ignore[method-assign]
    work.drop(2)
    assert calls == [(250, 500)]
    work.move(1, 2)
    check_context(work)


def test_an_edit_that_is_cut_short_has_changed_nothing() -> None:
    work = workspace("One. " * 50, "Two. " * 50)
    expected = answer(work.ask("Who?"))
    state, context = work.state, work.context
    assert context is not None

    def cut(start: int, stop: int) -> None:
        raise KeyboardInterrupt

    context.delete = cut  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        work.drop(1)
    assert work.state is state
    assert names(work) == ["One.txt", "Two.txt"]
    assert work.undo() == "the last turn"
    assert answer(work.ask("Who?")) == expected
    check_context(work)
