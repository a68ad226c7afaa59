"""What a model thinks before it answers: told apart, limited, shown or not, and never kept."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_helpers import scripted
from cli_helpers import make_tokenizer, run_nazx, tiny_checkpoint
from families import MarkupModel, family_tokenizer, template
from fixed_gauge import gauge
from terminals import Board

from nazx_cli.documents.document import Document
from nazx_cli.engine.generator import Stats
from nazx_cli.errors import UsageError
from nazx_cli.reading.library import Library
from nazx_cli.session.events import Answer, Delta, Event, Notice, Thought
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings
from nazx_cli.session.state import Message
from nazx_cli.session.templating.templates import render
from nazx_cli.ui.terminal.screen import Screen
from nazx_cli.ui.turn import Outcome, show_turn

OPENS = ("deepseek-r1",)  # its template has the model think; the others have it begin itself
BEGINS = ("qwen3", "smollm3", "granite3")
STATS = Stats(1_820, 35_400_000, 9, 0.5, 12.5)


def pieces(name: str, thought: str, said: str, closing: str = "</think>") -> list[str]:
    """An answer with thinking, as a family's model gives it."""
    return [*(["<think>"] if name in BEGINS else []), f"\n{thought}\n{closing}\n\n", said]


def asked(
    answers: list[str], name: str = "qwen3", question: str = "Why?", **settings: object
) -> tuple[Session, MarkupModel, list[Event]]:
    lm = MarkupModel(answers, tokenizer=family_tokenizer(name))
    session = Session(lm, settings=SessionSettings(**settings))  # type: ignore[arg-type]
    return session, lm, list(session.ask(question))


def thought_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Thought))


def said_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@pytest.mark.parametrize("name", [*OPENS, *BEGINS])
def test_thinking_is_told_apart_from_the_answer_and_not_kept(name: str) -> None:
    answers = [*pieces(name, "Is it? <b>", "Yes."), *pieces(name, "More?", "No.")]
    session, lm, events = asked(answers, name)
    assert thought_of(events).strip() == "Is it? <b>"
    assert said_of(events) == "Yes."
    assert isinstance(events[-1], Answer)
    assert (events[-1].text, events[-1].finish, events[-1].stats.generated) == ("Yes.", "stop", 5)
    list(session.ask("And?"))
    assert [turn.answer.strip() for turn in session.turns] == ["Yes.", "No."]
    second = lm.prompts[len(lm.prompts) // 2]
    assert "Yes." in second and "Is it?" not in second


def test_a_model_that_does_not_think_answers_at_once() -> None:
    for text in ("<thinker> is no mark.", "<", " Yes."):
        _, _, events = asked([text])
        assert (thought_of(events), said_of(events)) == ("", text.strip())


def test_marks_that_are_special_tokens_are_seen() -> None:
    tokenizer = make_tokenizer(template("qwen3").replace("think>", "seed:think>"))
    library = tokenizer._backend.library
    library.add_special_tokens(["<seed:think>", "</seed:think>"])
    lm = MarkupModel(["<seed:think>", "Hm</seed:think>", "Yes."], tokenizer=tokenizer)
    events = list(Session(lm).ask("Why?"))  # type: ignore[arg-type]
    assert (thought_of(events), said_of(events)) == ("Hm", "Yes.")


def test_thinking_has_a_limit_of_its_own_and_then_the_answer_comes() -> None:
    answers = ["<think>", "on and on" * 9, "Yes, it is."]
    _, lm, events = asked(answers, max_thinking=20, max_tokens=9)
    assert thought_of(events) == ("on and on" * 9)[:20]
    assert [event.finish for event in events if isinstance(event, Thought)][-1] == "length"
    assert lm.max_tokens == [9, 20, 9]
    assert lm.prompts[-1].endswith("\n</think>\n\n")
    assert isinstance(events[-1], Answer)
    assert (events[-1].text, events[-1].finish) == ("Yes, it i", "length")


def test_thinking_that_goes_round_in_circles_ends() -> None:
    lap = "Wait, is it the fox or is it the heron that I have to look for here? "
    _, _, events = asked(["<think>", lap * 20, "The fox."], max_thinking=2000)
    assert thought_of(events).count("Wait") == 1
    assert [event.finish for event in events if isinstance(event, Thought)][-1] == "loop"
    assert said_of(events) == "The fox."


def test_no_thinking_at_all_where_none_is_allowed() -> None:
    _, lm, events = asked(["Yes."], "deepseek-r1", max_thinking=0)
    assert not any(isinstance(event, Thought) for event in events)
    assert said_of(events) == "Yes."
    assert lm.prompts[0].endswith("<think>\n\n</think>\n\n")


def test_the_window_leaves_the_answer_its_room() -> None:
    counting = " ".join(map(str, range(200)))
    lm = MarkupModel(pieces("qwen3", counting, "Yes."), tokenizer=family_tokenizer("qwen3"))
    lm.window, lm.kind = 256, "full"
    settings = SessionSettings(max_tokens=64)
    *_, answer = Session(lm, settings=settings).ask("Why?")  # type: ignore[arg-type]
    assert isinstance(answer, Answer) and answer.text == "Yes."
    prompt = len(lm.tokenizer.encode_markup(lm.prompts[1]))
    assert lm.max_tokens[1] == 256 - 64 - prompt
    closing = len(lm.tokenizer.encode_markup("\n</think>\n\n"))
    assert lm.max_tokens[2] == 64 - closing


@pytest.mark.parametrize(
    ("name", "switched"), [("qwen3", True), ("smollm3", True), ("deepseek-r1", False)]
)
def test_off_asks_the_template_and_says_so_where_that_does_not_help(
    name: str, switched: bool
) -> None:
    answers = ["Yes."] if switched else pieces(name, "Hm", "Yes.")
    session, lm, events = asked(answers * 2, name, think="off")
    assert lm.prompts[0].rstrip().endswith("</think>") == switched
    assert any("no switch" in event.text for event in events if isinstance(event, Notice)) != (
        switched
    )
    assert said_of(events) == "Yes."
    assert not any(isinstance(event, Notice) for event in session.ask("And?"))  # told once


def test_a_switch_that_is_off_by_itself_is_turned_on() -> None:
    for think, told in (("on", True), ("hide", False)):
        _, lm, _ = asked(["Yes."], "granite3", think=think)
        assert ("Think between" in lm.prompts[0]) == told


def test_what_every_part_of_a_document_answers_is_without_thinking() -> None:
    lm = MarkupModel([], tokenizer=family_tokenizer("deepseek-r1"), window=1200)
    lm.answers = pieces("deepseek-r1", "Hm, 42", "A fox.") * 9
    document = Document("a.txt", "The fox bought a lantern.\n\n" * 60, "text")
    library = Library.build([document], lm.tokenizer)
    settings = SessionSettings(max_tokens=64, read="all", max_thinking=99)
    session = Session(lm, library, settings)  # type: ignore[arg-type]
    *_, answer = session.ask("Who bought it?")
    assert isinstance(answer, Answer) and answer.text == "A fox."
    assert lm.prompts[-1].count("A fox.") > 0 and "Hm, 42" not in "".join(lm.prompts[:-1:2])
    # What is thought is not held to the document's numbers, the answer is.
    assert lm.grounded == [False, True] * (len(lm.grounded) // 2)


def test_marks_in_messages_are_ordinary_text() -> None:
    tokenizer = family_tokenizer("qwen3")
    closing = tokenizer.encode_markup("</think>")
    assert len(closing) == 1
    talk = [Message("user", "a </think> b"), Message("assistant", "so </think> it is")]
    ids = render(tokenizer, [*talk, Message("user", "c")])
    assert not {*closing}.intersection(ids)
    text = tokenizer.decode(ids)
    assert "a </think> b" in text and "so </think> it is" in text


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="think cannot be 'yes'"):
        SessionSettings(think="yes")


def test_thinking_is_set_in_a_chat() -> None:
    talk = scripted()
    assert talk("/set think off") == "think is off\n"
    assert talk("/set parameter max-thinking 1k") == "max_thinking is 1000\n"
    assert talk.workspace.settings.asks_to_think is False
    assert "hide, on, off" in talk("/set think maybe")


def test_what_was_thought_is_shown_when_it_is_asked_for_and_kept_nowhere() -> None:
    answers = [*pieces("qwen3", "Is it <b>?", "Yes."), "No."]
    talk = scripted(lm=MarkupModel(answers, tokenizer=family_tokenizer("qwen3")))
    nothing = talk("/thinking")
    talk("Why?")
    assert "Is it <b>?" not in talk.shown + talk.out.getvalue()
    assert talk("/thinking") == "Is it <b>?\n"
    assert "Is it" not in str(talk.workspace.snapshot())
    talk("/undo")
    assert talk("/thinking") == nothing
    talk("And now?")  # is answered without thinking
    assert talk("/thinking") == nothing


# On the terminal and off it


def thoughtful(finish: str = "stop") -> Iterator[Event]:
    yield Thought("Is it the **fox**?\n\n", 5, 0.4)
    yield Thought("Or the heron", 12, 12.4, finish)
    yield Delta("The *fox*.", STATS)
    yield Answer("The *fox*.", (), "stop", STATS, "none")


def run(events: Iterator[Event], board: Board, *, thinking: bool, **more: bool) -> Outcome:
    screen = Screen(board, board, **more)
    return show_turn(events, "model", screen, gauge=gauge(), thinking=thinking)


@pytest.mark.parametrize("plain", [False, True])
def test_thinking_that_is_shown_is_dimmed(plain: bool) -> None:
    board = Board()
    run(thoughtful(), board, thinking=True, plain=plain)
    marks = ("**fox**", "*fox*") if plain else ("fox", "fox")
    assert board.shown == [f"Is it the {marks[0]}?", "", "Or the heron", "", f"The {marks[1]}."]
    written = "".join(board.writes)
    assert "\x1b[2m" in written
    assert "\x1b[2mThe" not in written


def test_thinking_that_is_hidden_is_a_line() -> None:
    board = Board()
    run(thoughtful("length"), board, thinking=False)
    assert board.shown == [
        "(thought for 12.4 s, 12 tokens)",
        "The fox.",
        "(the thinking was cut off at its limit; --max-thinking allows more)",
    ]


def test_that_the_model_thinks_is_seen_meanwhile() -> None:
    board = Board()
    seen: list[str] = []

    def events() -> Iterator[Event]:
        yield Thought("Is", 7, 0.4)
        time.sleep(0.6)
        seen.extend(board.shown)
        yield from thoughtful()

    run(events(), board, thinking=False)
    assert "thinking, 7 tokens" in seen[0]


def test_thinking_between_its_marks_where_nothing_can_be_drawn() -> None:
    board = Board()
    screen = Screen(board, io.StringIO(), plain=True)
    show_turn(thoughtful(), "model", screen, thinking=True)
    assert board.shown[0] == "<think>" and board.shown[-3:] == ["</think>", "", "The *fox*."]


def test_what_ends_while_it_thinks_says_so() -> None:
    def events() -> Iterator[Event]:
        yield Thought("Is it", 5, 0.4)
        raise KeyboardInterrupt

    out, err = io.StringIO(), io.StringIO()
    outcome = show_turn(events(), "model", Screen(out, err))
    assert outcome.interrupted and outcome.as_data("m")["thinking"] == "Is it"
    assert out.getvalue() == ""
    assert "still thinking" in err.getvalue()


@pytest.mark.parametrize("think", ["on", "hide", "off"])
def test_into_a_pipe_goes_the_answer_alone(tmp_path: Path, think: str) -> None:
    opening = "{% for m in messages %}{{ m.content }}{% endfor %}<think>{# </think> #}"
    model = str(tiny_checkpoint(tmp_path / "m", template=opening))
    options = ("-m", model, "--think", think, "--max-thinking", "9", "--max-tokens", "5", "Why?")
    out, _, code = run_nazx("ask", "--json", *options)
    data = json.loads(out)
    assert code == 0 and 0 < len(data["thinking"]) <= 9 and data["stats"]["generated"] == 5
    shown, notes, code = run_nazx("ask", *options)
    assert (code, shown.strip()) == (0, data["answer"])
    assert "(thought for " in notes and ", 9 tokens)" in notes
    assert "note: the model thinks all the same" in notes or think != "off"
