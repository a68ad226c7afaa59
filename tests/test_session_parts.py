"""Reading in small prompts side by side: what is asked, which answer stands, what it cites."""

from __future__ import annotations

import io
import json
import math

import pytest
from cli_helpers import ScriptedModel
from reading_helpers import FACTS

from nazx_cli.documents.document import Document
from nazx_cli.engine.generator import Candidate, Stats
from nazx_cli.reading.attribution import quoted
from nazx_cli.reading.library import Library
from nazx_cli.reading.passages import Passage
from nazx_cli.session.citation import NOT_SAID, Quotation, is_open, parse, write
from nazx_cli.session.events import Answer, Delta, Notice, Reading, RunnerUp
from nazx_cli.session.parts import Asking, PartAnswer, part_answer
from nazx_cli.session.prompt import Prompt, user_message
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings
from nazx_cli.ui.terminal.screen import Screen
from nazx_cli.ui.turn import show_turn

APART, PUT_FIRST = Asking().apart, Asking().first
PROMPTS = 1 + APART


def session(
    answers: list[str], text: str | None = None, settings: SessionSettings | None = None
) -> Session:
    lm = ScriptedModel(answers, can_cite=True)
    document = Document("animals.txt", text or "\n\n".join(FACTS * 6), "text")
    library = Library.build([document], lm.tokenizer)
    return Session(lm, library, settings)  # type: ignore[arg-type]


def asked(chat: Session, question: str) -> Answer:
    answer = list(chat.ask(question))[-1]
    assert isinstance(answer, Answer)
    return answer


def test_the_surest_part_answers_and_is_cited() -> None:
    said = ["[1] Pike.|-1", "[1] Frogs.|-2.0", "[1] Trout.|-0.2", f"{NOT_SAID}|-0.3"]
    chat = session([*said, *["[1] Worms.|-1"] * (PROMPTS - 4)])
    answer = asked(chat, "What does the otter eat in the river?")
    assert answer.text == "Trout."
    assert answer.cited is not None and answer.sources[0] is answer.cited
    assert answer.confidence == pytest.approx(1 / (1 + math.exp(0.2 + 0.2 + 0.2 - 1)))
    (quotation,) = answer.quotations
    assert quotation.text and quotation.text in " ".join(answer.cited.text.split())
    assert [turn.answer for turn in chat.turns] == ["Trout."]
    lm = chat.lm
    assert isinstance(lm, ScriptedModel) and len(lm.prompts) == 1 + APART
    assert min(map(len, lm.prompts)) < len(lm.prompts[0]) == max(map(len, lm.prompts))
    assert all("[1]" in prompt and "[2]" not in prompt for prompt in lm.prompts[1:])


def test_where_the_first_prompts_are_enough_no_others_are_put() -> None:
    said = ["[1] Pike.|-1", "[1] Frogs.|-2.0", "[1] Trout.|-0.1", f"{NOT_SAID}|-0.3"]
    chat = session(said)
    events = list(chat.ask("What does the otter eat in the river?"))
    found, answer = events[0], events[-1]
    assert isinstance(found, Reading) and isinstance(answer, Answer)
    assert answer.text == "Trout." and len(chat.lm.prompts) == PUT_FIRST  # type: ignore[union-attr]
    assert len(answer.sources) < len(found.passages)  # what was not put was not read
    assert set(answer.sources) < set(found.passages)


def test_a_limit_counts_the_words_of_an_answer_and_not_the_number_before_it() -> None:
    chat = session(["[1] Trout.|-0.1"] * PROMPTS, settings=SessionSettings(max_tokens=3))
    answer = asked(chat, "What does the otter eat?")  # each token is a character
    assert (answer.text, answer.finish) == ("Tro", "length")
    assert answer.cited is not None


def test_only_where_no_part_says_anything_the_document_does_not_say() -> None:
    answer = asked(session([f"{NOT_SAID}|-0.01"] * PROMPTS), "Who painted the heron?")
    assert answer.text == NOT_SAID
    assert answer.cites and not answer.quotations
    assert answer.confidence == pytest.approx(math.exp(-0.01), abs=1e-6)


def test_an_answer_that_the_model_would_rather_not_give_is_not_said() -> None:
    answer = asked(session([f"[1] Frogs.|{math.log(0.09)}"] * PROMPTS), "Who painted the heron?")
    assert answer.text == NOT_SAID and answer.cited is None
    answer = asked(session([f"[1] Frogs.|{math.log(0.11)}"] * PROMPTS), "Who painted the heron?")
    assert answer.text == "Frogs." and answer.cited is not None


def test_a_document_that_fits_is_read_in_one_prompt_and_cited_without_a_number() -> None:
    chat = session(["The heron.|-0.2"], "The heron wears a red umbrella.")
    answer = asked(chat, "Who wears the umbrella?")
    assert answer.text == "The heron."
    assert answer.cited is not None and "red umbrella" in answer.cited.text


def test_a_question_that_points_back_carries_the_turn_before() -> None:
    chat = session(["[1] Trout.|-0.1"] * (2 * PROMPTS))
    asked(chat, "What does the otter eat?")
    asked(chat, "Where does it live?")
    asked_of = chat.lm.prompts[PUT_FIRST]  # type: ignore[union-attr]
    assert "What does the otter eat?" in asked_of and "Trout." in asked_of
    assert "river" in asked_of  # recall looked for the otter


@pytest.mark.parametrize("question", ("Why?", "Why did it do that?", "And who was it?"))
def test_a_question_that_only_points_back_is_none_about_the_whole(question: str) -> None:
    chat = session(["[1] Trout.|-0.1"] * (2 * PROMPTS))
    asked(chat, "What does the otter eat?")
    answer = asked(chat, question)
    assert answer.confidence is not None and len(chat.lm.prompts) == 2 * PUT_FIRST  # type: ignore[union-attr]
    first = session(["Of animals."])
    assert asked(first, question).confidence is None  # there was nothing before it


def test_what_is_asked_of_the_whole_stays_so_behind_a_turn() -> None:
    chat = session([*["[1] Trout.|-0.1"] * PROMPTS, "Of animals."])
    asked(chat, "What does the otter eat?")
    assert asked(chat, "What is it about?").confidence is None


def test_a_question_that_stands_alone_carries_no_turn() -> None:
    chat = session(["[1] Trout.|-0.1"] * (2 * PROMPTS))
    asked(chat, "What does the otter eat?")
    asked(chat, "What does the badger eat?")
    assert "otter eat?" not in chat.lm.prompts[PUT_FIRST]  # type: ignore[union-attr]


def test_a_long_chat_in_parts_gives_up_no_turns_since_its_prompts_carry_none() -> None:
    chat = session(["[1] " + "Trout and frogs. " * 12 + "|-0.1"] * (40 * PROMPTS))
    notices = [
        event
        for number in range(40)
        for event in chat.ask(f"What does otter {number} eat?")
        if isinstance(event, Notice)
    ]
    assert notices == [] and len(chat.turns) == 40


def test_a_question_about_the_whole_is_answered_as_before() -> None:
    chat = session(["A summary of animals."])
    answer = asked(chat, "Summarize the book")
    assert answer.text == "A summary of animals." and answer.confidence is None


def test_of_a_name_that_the_documents_do_not_have_they_say_nothing() -> None:
    chat = session([])
    events = list(chat.ask("What did Mr. Toad eat with Captain Nemo?"))
    assert [e.text for e in events if isinstance(e, Notice)] == [
        'the documents have no "Toad" and no "Nemo"'
    ]
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert (answer.text, answer.sources, answer.mode) == (NOT_SAID, (), "recall")
    assert [turn.answer for turn in chat.turns] == [NOT_SAID]


def test_a_name_beside_one_that_they_have_is_left_to_the_model() -> None:
    chat = session(["[1] Trout.|-0.1"] * PROMPTS, f"Mr. Badger is a friend. {' '.join(FACTS * 6)}")
    assert asked(chat, "What did Badger and Nemo eat?").text == "Trout."


def test_what_is_read_is_told_before_the_answer() -> None:
    events = list(session(["[1] Trout.|-0.2"] * PROMPTS).ask("What does the otter eat?"))
    assert isinstance(events[0], Reading) and events[0].mode == "recall"
    assert isinstance(events[-1], Answer)
    assert set(events[0].passages) == set(events[-1].sources)


@pytest.mark.parametrize(
    ("text", "number", "rest", "says_not"),
    [
        ("[2] The gryphon.", 2, "The gryphon.", False),
        (" [12]The gryphon.", 12, "The gryphon.", False),
        ("The gryphon.", None, "The gryphon.", False),
        ("The document does not say", None, "The document does not say", True),
        ("[1] The document does not say.", None, "The document does not say.", True),
        ("[x] odd", None, "[x] odd", False),
        ("", None, "", False),
    ],
)
def test_answers_are_taken_apart(text: str, number: int | None, rest: str, says_not: bool) -> None:
    assert parse(text) == (number, rest, says_not)


def test_what_is_written_is_what_is_read() -> None:
    assert parse(write("Frogs.", 3)) == (3, "Frogs.", False)
    assert parse(write(NOT_SAID, None)).says_not
    assert is_open("[1") and is_open(" ") and not is_open("[1] F") and not is_open("The")


def taken_apart(text: str, passages: tuple[Passage, ...], *logprobs: float) -> PartAnswer:
    """``text`` as a model that says each of its characters as a token."""
    prompt = Prompt("Who?", user_message("Who?", passages), "recall", passages)
    tokens = tuple(map(ord, text))
    told = (*logprobs, *(-0.1,) * (len(tokens) + 1 - len(logprobs)))
    said = Candidate(tokens, told, "stop", 0, 1)
    return part_answer([prompt], said, lambda ids: "".join(map(chr, ids)))


def test_a_number_that_no_passage_has_cites_nothing() -> None:
    passages = tuple(Passage("a.txt", n, n, n, n + 1, f"text {n}") for n in (1, 2))
    found = taken_apart("[7] Frogs.", passages)
    assert found.cited is None and found.text == "Frogs."


def test_an_answer_is_as_sure_as_its_own_words_are() -> None:
    passages = (Passage("a.txt", 1, 1, 0, 1, "text"),)
    found = taken_apart("[1] No", passages, -3.0, -4.0, -5.0, -0.3, -0.2, -0.25, -0.5)
    assert found.opens == -3.0 and found.logprobs == (-0.3, -0.2, -0.25, -0.5)
    bare = taken_apart("No", passages, -0.3, -0.2, -0.5)
    assert bare.opens == -0.3 and bare.logprobs == (-0.3, -0.2, -0.5)


def test_a_model_that_says_not_is_as_likely_to_answer_as_it_had_left_for_it() -> None:
    found = taken_apart(NOT_SAID, (), math.log(0.75))
    assert found.text == "" and math.exp(found.opens) == pytest.approx(0.25)


def test_the_passage_that_has_the_answer_is_cited_where_the_named_one_has_it_not() -> None:
    texts = ("Nobody came.", "The otter eats trout.", "The heron eats frogs and trout.")
    passages = tuple(Passage("a.txt", n, n, n, n + 1, text) for n, text in enumerate(texts, 1))

    def cited(text: str) -> Passage | None:
        return taken_apart(text, passages).cited

    assert cited("[1] Trout.") == passages[1]  # the first that has it
    assert cited("[3] Trout.") == passages[2]  # the named one has it too: it stays
    assert cited("[1] Frogs and trout.") == passages[2]
    assert cited("[2] Frogs and trout.") == passages[1]  # it has some of it
    assert cited("[1] Pebbles.") == passages[0]  # none has it: the named one stays


def test_an_answer_outside_of_parts_shows_no_number() -> None:
    lm = ScriptedModel(["[1] A summary of [2] animals."], can_cite=True, cites=True)
    library = Library.build([Document("animals.txt", "\n\n".join(FACTS), "text")], lm.tokenizer)
    chat = Session(lm, library)  # type: ignore[arg-type]
    events = list(chat.ask("Summarize the book"))
    assert "".join(e.text for e in events if isinstance(e, Delta)) == "A summary of [2] animals."
    assert isinstance(events[-1], Answer) and events[-1].text == "A summary of [2] animals."
    lm.answers.append("[1")  # cut off
    assert asked(chat, "Summarize the book").text == ""


def test_the_quoted_sentence_is_the_one_that_shares_most() -> None:
    text = 'It was late. "The Knave stole the tarts," said the King.\n\nNobody spoke.'
    passage = Passage("a.txt", 1, 3, 0, 9, text)
    assert quoted(passage, "The tarts were stolen by the Knave") == (
        '"The Knave stole the tarts," said the King.'
    )
    # The answer's words decide; the question's only between sentences that have as many of them.
    assert quoted(passage, "Nobody", "Who was late?") == "Nobody spoke."
    assert quoted(passage, "Unknown", "Was it late?") == "It was late."
    assert quoted(Passage("a.txt", 1, 1, 0, 1, "   "), "anything") == ""


def test_the_terminal_shows_the_one_source_and_how_many_others_were_given() -> None:
    out, err = io.StringIO(), io.StringIO()
    chat = session(["[1] Trout.|-0.1", *["[1] Frogs.|-3"] * APART])
    show_turn(chat.ask("What does the otter eat?"), "m", Screen(out, err, sources=None))
    assert out.getvalue().strip() == "Trout."
    assert err.getvalue() == ""  # no terminal: sources only where they are asked for
    chat = session(["[1] Trout.|-0.1", *["[1] Frogs.|-3"] * APART])
    show_turn(chat.ask("What does the otter eat?"), "m", Screen(out, err, sources=True))
    assert "\nsource: animals.txt:" in err.getvalue() and "(the model was given " in err.getvalue()
    assert "unsure" not in err.getvalue()
    for sure, doubt in ((-0.6, "unsure"), (-1.5, "a guess")):
        chat = session([f"[1] Trout.|{sure}"] * PROMPTS)
        show_turn(chat.ask("What does the otter eat?"), "m", Screen(out, err, sources=True))
        assert f"\n{doubt}; source: animals.txt:" in err.getvalue()


def test_an_unsure_answer_is_told_with_another_and_its_source() -> None:
    said = ["[1] Trout.|-1.5", "[1] Trout.|-1.6", *["[1] Blue frogs.|-2"] * (APART - 1)]
    answer = asked(session([*said]), "What does the otter eat?")
    assert answer.text == "Trout." and answer.runner_up is not None
    assert answer.runner_up.text == "Blue frogs." and answer.runner_up.quotation is not None
    assert answer.runner_up.confidence <= (answer.confidence or 0)
    err = io.StringIO()
    screen = Screen(io.StringIO(), err, sources=True)
    show_turn(session([*said]).ask("What does the otter eat?"), "m", screen)
    assert "\nor perhaps: Blue frogs.  animals.txt:" in err.getvalue()
    out = io.StringIO()
    chat = session([*said])
    show_turn(chat.ask("What does the otter eat?"), "m", Screen(out, err), as_json=True)
    other = json.loads(out.getvalue())["runner_up"]
    assert other["answer"] == "Blue frogs." and other["cited"]["file"] == "animals.txt"
    assert other["quote"] == answer.runner_up.quotation.text
    assert [turn.answer for turn in chat.turns] == ["Trout."]  # it is no part of the conversation
    assert chat.turns[0].confidence == pytest.approx(
        json.loads(out.getvalue())["confidence"], abs=1e-4
    )


def test_what_lies_within_a_cited_passage_is_no_other_passage() -> None:
    whole, within = (Passage("a.txt", 1, 2, 0, stop, "Trout. Frogs.") for stop in (9, 5))
    first, second = Quotation(whole, "Trout."), RunnerUp("Frogs.", 0.2, Quotation(within, "Frogs."))
    stats = Stats(0, 0, 0, 0.0, 0.0)
    answer = Answer("Trout.", (whole, within), "stop", stats, "recall", (first,), 0.3, second)
    err = io.StringIO()
    Screen(io.StringIO(), err, sources=True).show_citation(answer)
    assert "or perhaps: Frogs." in err.getvalue() and "more" not in err.getvalue()


def test_an_unsure_answer_without_a_source_is_told_as_one() -> None:
    passage = Passage("a.txt", 1, 2, 0, 9, "Trout. Frogs.")
    stats, second = Stats(0, 0, 0, 0.0, 0.0), RunnerUp("Frogs.", 0.2, None)
    for sure, other, told in (
        (0.3, second, "\nunsure\nor perhaps: Frogs.\n(the model was given 1 passage)\n"),
        (0.3, None, "\nunsure\n(the model was given 1 passage)\n"),
        (0.14, None, "\na guess\n(the model was given 1 passage)\n"),
        (0.8, None, ""),
        (None, None, ""),
    ):
        answer = Answer("Trout.", (passage,), "stop", stats, "recall", (), sure, other)
        err = io.StringIO()
        Screen(io.StringIO(), err, sources=True).show_citation(answer)
        assert err.getvalue() == told


def test_json_has_the_citation_its_sentence_and_the_confidence() -> None:
    out = io.StringIO()
    chat = session(["[1] Trout.|-0.1"] * PROMPTS)
    show_turn(chat.ask("What does the otter eat?"), "m", Screen(out, io.StringIO()), as_json=True)
    data = json.loads(out.getvalue())
    assert data["answer"] == "Trout." and data["cited"]["file"] == "animals.txt"
    assert data["quote"] and data["confidence"] == pytest.approx(
        1 / (1 + math.exp(0.2 - 1)), abs=1e-4
    )
    assert data["cited"] == data["sources"][0]


def test_what_the_prompt_holds_of_the_conversation_does_not_grow_with_it() -> None:
    """The gauge asks for it after each turn: it must cost no more in a long conversation."""
    chat = session(["[1] Trout.|-0.1"] * (12 * PROMPTS))
    used = []
    for _ in range(12):
        asked(chat, "What does the otter eat in the river?")
        used.append(chat.usage())
    assert {usage.conversation_tokens for usage in used} == {len(chat.conversation_ids())}
    assert all(0 < usage.window_used <= (usage.window or 0) for usage in used)
    chat.drop(1)  # without documents the whole conversation goes on
    assert chat.usage().conversation_tokens > used[0].conversation_tokens
