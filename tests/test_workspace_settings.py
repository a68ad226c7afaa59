"""Parameters, models and usage of a workspace."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_helpers import tiny_checkpoint
from workspace_helpers import answer, model, names, workspace

from nazx_cli import load_model
from nazx_cli.errors import UsageError
from nazx_cli.session.settings import SessionSettings


def test_nothing_to_undo_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="nothing to undo"):
        workspace().undo()


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("temperature", "0.7", "0.7"),
        ("top-k", "40", "40"),
        ("top_p", "0.9", "0.9"),
        ("MIN_P", "0.05", "0.05"),
        ("repeat-penalty", "1.2", "1.2"),
        ("seed", "7", "7"),
        ("seed", "none", "none"),
        ("max_tokens", "64", "64"),
        ("ctx", "4,096", "4096"),
        ("ctx", "off", "none"),
        ("read", "Recall", "recall"),
        ("grounding", "Off", "off"),
    ],
)
def test_parameters_are_set_by_name(key: str, value: str, shown: str) -> None:
    work = workspace()
    name = key.lower().replace("-", "_")
    assert work.set_parameter(key, value) == f"{name} is {shown}"
    assert work.parameters()[name] == shown


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("temprature", "1", "did you mean temperature"),
        ("xyz", "1", "use one of temperature, "),
        ("temperature", "hot", "is not a number"),
        ("temperature", "nan", "out of range"),
        ("top_k", "1.5", "is not a whole number"),
        ("top_p", "2", "out of range"),
        ("max_tokens", "0", "is none"),
        ("ctx", "0", "leaves no room"),
        ("read", "fast", "no read mode"),
        ("grounding", "2", "neither on nor off"),
    ],
)
def test_parameters_that_make_no_sense_change_nothing(key: str, value: str, says: str) -> None:
    work = workspace()
    state = work.state
    with pytest.raises(UsageError) as caught:
        work.set_parameter(key, value)
    assert says in str(caught.value)
    assert work.state is state


def test_a_read_mode_that_the_model_cannot_do_is_refused_before_there_are_documents() -> None:
    with pytest.raises(UsageError, match="not trained"):
        workspace(kind="windowed").set_parameter("read", "resident")


def test_another_model_keeps_the_conversation_the_branches_and_undo() -> None:
    work = workspace("One.", "Two.")
    answer(work.ask("Who?"))
    work.fork("idea")
    work.drop(2)
    other = model("windowed")
    work.use_model(other)
    assert work.lm is other
    assert [turn.question for turn in work.turns] == ["Who?"]
    answer(work.ask("Why?"))
    work.undo()
    work.undo()
    assert names(work) == ["One.txt", "Two.txt"]
    work.switch("main")
    answer(work.ask("Why?"))


def test_another_tokenizer_has_the_documents_tokenized_anew_once(tmp_path: Path) -> None:
    from reading_helpers import small_tokenizer

    work = workspace("One fine day.", "Two fine days.")
    answer(work.ask("Who?"))
    old = work.documents
    work.fork("idea")
    work.drop(1)
    other = load_model(tiny_checkpoint(tmp_path / "other", template=None))
    small_tokenizer(259)._backend.library.save(str(tmp_path / "other" / "tokenizer.json"))
    work.use_model(other)
    expected = other.tokenizer.encode("Two fine days.")
    assert work.documents[0].ids.tolist() == expected
    assert work.branches["main"].documents[1] is work.documents[0]
    assert work.documents[0] is not old[1]
    work.undo()
    assert names(work) == ["One.txt", "Two.txt"]
    assert work.documents[1].ids.tolist() == expected


def test_a_model_that_cannot_go_on_changes_nothing() -> None:
    work = workspace("One.", settings=SessionSettings(read="resident", max_tokens=3))
    answer(work.ask("Who?"))
    lm, state = work.lm, work.state
    with pytest.raises(UsageError, match="not trained"):
        work.use_model(model("windowed"))
    assert (work.lm, work.state) == (lm, state)
    answer(work.ask("Why?"))


def test_usage_counts_documents_and_conversation_apart() -> None:
    work = workspace("One two three.", "Four.", settings=SessionSettings(max_tokens=3, ctx=2000))
    assert work.usage().context_bytes == 0
    assert work.usage().conversation_tokens == 0
    seen = [work.usage() for _ in work.ask("Who?")]
    usage, context = work.usage(), work.context
    assert context is not None
    assert usage.documents == (("One.txt", 14), ("Four.txt", 5))
    assert usage.document_tokens == 19
    assert usage.conversation_tokens == len(work.conversation_ids())
    assert (usage.window, usage.window_used) == (2000, 19 + usage.conversation_tokens)
    assert usage.context_bytes == context.nbytes > 0
    assert seen[-1].conversation_tokens == len(context.live_ids)
    work.drop(1)
    assert work.usage().documents == (("Four.txt", 5),)
    work.undo()
    work.undo()
    assert work.usage().conversation_tokens == 0


def test_usage_of_a_windowed_model_counts_its_window() -> None:
    work = workspace("One two three.", kind="windowed")
    answer(work.ask("Who?"))
    usage = work.usage()
    assert usage.window == work.lm.window
    assert usage.window_used == usage.conversation_tokens < usage.window


def test_usage_can_be_asked_from_another_thread_while_an_answer_comes() -> None:
    from threading import Event as Flag
    from threading import Thread

    work = workspace("One. " * 50, settings=SessionSettings(max_tokens=60))
    seen: list[int] = []
    done = Flag()

    def watch() -> None:
        while not done.is_set():
            seen.append(work.usage().conversation_tokens)
            done.wait(0.0005)

    thread = Thread(target=watch)
    thread.start()
    try:
        answers = [answer(work.ask("Who was it then?")) for _ in range(2)]
    finally:
        done.set()
        thread.join()
    alone = workspace("One. " * 50, settings=SessionSettings(max_tokens=60))
    assert answers == [answer(alone.ask("Who was it then?")) for _ in range(2)]
    assert len(set(seen)) > 20
