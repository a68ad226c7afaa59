"""Conversations: prompts, history, passages, interruption; the model is a scripted one."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_helpers import ScriptedModel, make_tokenizer, run_nazx, tiny_checkpoint

from nazx_cli.documents.document import Document
from nazx_cli.errors import ContextOverflowError, UsageError
from nazx_cli.names import READ_MODES
from nazx_cli.reading.library import Library
from nazx_cli.session.events import Answer, Delta, Notice, Progress, Reading
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings
from nazx_cli.session.templating.templates import StopFilter

BOOK = "\n\n".join(
    f"Chapter {n}. The {animal} went to the market and bought {thing}. " + "It rained all day. " * 6
    for n, (animal, thing) in enumerate(
        [("fox", "a lantern"), ("heron", "a red umbrella"), ("badger", "some cheese")] * 4
    )
)


def library(text: str = BOOK) -> Library:
    return Library.build([Document("book.txt", text, "text")], make_tokenizer())


def say(session: Session, question: str) -> Answer:
    *_, last = session.ask(question)
    assert isinstance(last, Answer)
    return last


def test_an_answer_is_its_deltas_joined() -> None:
    session = Session(ScriptedModel(["Hello — naïve 👧 world."]))
    events = list(session.ask("Who?"))
    assert "".join(e.text for e in events if isinstance(e, Delta)) == "Hello — naïve 👧 world."
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert (answer.text, answer.finish, answer.mode) == ("Hello — naïve 👧 world.", "stop", "none")
    assert answer.sources == ()


def test_an_answer_at_the_limit_says_so() -> None:
    session = Session(ScriptedModel(["abcdef"]), settings=SessionSettings(max_tokens=3))
    answer = say(session, "Who?")
    assert (answer.text, answer.finish) == ("abc", "length")


def test_each_turn_goes_on_from_the_last_without_recomputing() -> None:
    lm = ScriptedModel(["One.", "Two."])
    session = Session(lm, settings=SessionSettings(system="Be brief."))
    say(session, "First?")
    kept: list[int] = []
    context = lm.contexts[0]
    truncate = context.truncate_live
    context.truncate_live = lambda n: (kept.append(n), truncate(n))[1]  # type: ignore[method-assign]
    before = len(context)
    say(session, "Second?")
    assert kept == [before]
    assert len(lm.contexts) == 1
    assert lm.prompts[1] == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nFirst?<|im_end|>\n"
        "<|im_start|>assistant\nOne.<|im_end|>\n<|im_start|>user\nSecond?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_clearing_forgets_the_conversation() -> None:
    lm = ScriptedModel(["One.", "Two."])
    session = Session(lm)
    say(session, "First?")
    session.clear()
    say(session, "Second?")
    assert "First?" not in lm.prompts[1]
    assert len(session.turns) == 1


@pytest.mark.parametrize("how", ["closed by the consumer", "raised in the model"])
def test_an_interrupted_answer_keeps_what_was_said(how: str) -> None:
    lm = ScriptedModel(["abcdef", "Fine."], cut=3 if how == "raised in the model" else None)
    session = Session(lm)
    said = ""
    if lm.cut is not None:
        with pytest.raises(KeyboardInterrupt):
            for event in session.ask("First?"):
                said += event.text if isinstance(event, Delta) else ""
    else:
        events = session.ask("First?")
        while len(said) < 3:
            event = next(events)
            said += event.text if isinstance(event, Delta) else ""
        events.close()
    assert said == "abc"
    assert [(t.answer, t.interrupted) for t in session.turns] == [("abc", True)]
    lm.cut = None
    say(session, "Second?")
    assert "<|im_start|>assistant\nabc<|im_end|>" in lm.prompts[1]
    assert [t.interrupted for t in session.turns] == [True, False]


def test_an_answer_interrupted_before_its_first_word_leaves_no_turn() -> None:
    session = Session(ScriptedModel(["abc"], cut=0))
    with pytest.raises(KeyboardInterrupt):
        list(session.ask("First?"))
    assert session.turns == ()


def test_an_empty_question_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        list(Session(ScriptedModel([])).ask("  \n"))


def test_a_question_longer_than_the_window_names_both_counts() -> None:
    session = Session(ScriptedModel([], window=300))
    with pytest.raises(ContextOverflowError) as caught:
        list(session.ask("why " * 250))
    assert "999 tokens" in caught.value.message
    assert "300" in caught.value.message
    assert caught.value.exit_code == 4


def test_a_context_that_no_question_fits_is_told_with_what_it_takes() -> None:
    session = Session(ScriptedModel([], window=300), settings=SessionSettings(ctx=10))
    with pytest.raises(ContextOverflowError) as caught:
        list(session.ask("Why?"))
    assert "a context of 10 tokens has no room" in caught.value.message
    needed = int(caught.value.hint.split(":")[0].rsplit(" ", 1)[1].replace(",", ""))
    enough, less = SessionSettings(ctx=needed), SessionSettings(ctx=needed - 1)
    list(Session(ScriptedModel(["So."], window=300), settings=enough).ask("Why?"))
    with pytest.raises(ContextOverflowError):
        list(Session(ScriptedModel([], window=300), settings=less).ask("Why?"))


def test_a_system_message_longer_than_the_window_is_named_as_the_cause() -> None:
    session = Session(ScriptedModel([], window=300), settings=SessionSettings(system="so " * 250))
    with pytest.raises(ContextOverflowError, match="the system message has 750 tokens"):
        list(session.ask("Why?"))


def test_old_turns_are_left_out_with_a_notice_when_the_window_is_full() -> None:
    lm = ScriptedModel([f"Answer {n} " + "x" * 40 for n in range(12)], window=600)
    session = Session(lm, settings=SessionSettings(max_tokens=100))
    notices = []
    for n in range(12):
        notices += [e for e in session.ask(f"Question {n}?") if isinstance(e, Notice)]
        prompt = lm.prompts[-1]
        assert len(lm.tokenizer.encode_markup(prompt)) + 100 <= 600
        assert prompt.endswith(f"user\nQuestion {n}?<|im_end|>\n<|im_start|>assistant\n")
    assert "Question 0?" not in lm.prompts[-1]
    assert "Question 10?" in lm.prompts[-1]
    assert len(session.turns) == 12
    assert 1 <= len(notices) <= 6
    assert "left out" in notices[0].text


def test_passages_and_question_share_the_user_turn() -> None:
    lm = ScriptedModel(["A red umbrella."], window=1200)
    session = Session(lm, library(), SessionSettings(max_tokens=64))
    events = list(session.ask("What did the heron buy?"))
    reading, answer = events[0], events[-1]
    assert isinstance(reading, Reading) and isinstance(answer, Answer)
    assert reading.mode == answer.mode == "recall"
    assert answer.sources == reading.passages != ()
    prompt = lm.prompts[0]
    for passage in reading.passages:
        assert passage.text.strip() in prompt
    assert "red umbrella" in prompt
    assert "book.txt" in prompt
    assert prompt.count("<|im_start|>user") == 1
    assert prompt.rstrip().endswith("What did the heron buy?<|im_end|>\n<|im_start|>assistant")
    assert len(lm.tokenizer.encode_markup(prompt)) + 64 <= 1200


def test_earlier_passages_make_room_for_new_ones() -> None:
    lm = ScriptedModel(["A red umbrella.", "Cheese."], window=1200)
    session = Session(lm, library(), SessionSettings(max_tokens=64))
    events = list(session.ask("What did the heron buy?"))
    events += session.ask("What did the badger buy?")
    assert not [e for e in events if isinstance(e, Notice)]
    assert "user\nWhat did the heron buy?<|im_end|>" in lm.prompts[1]
    assert "A red umbrella." in lm.prompts[1]
    assert "some cheese" in lm.prompts[1]
    assert len(lm.tokenizer.encode_markup(lm.prompts[1])) + 64 <= 1200


def test_a_model_that_attends_documents_gets_them_resident_once() -> None:
    lm = ScriptedModel(["One.", "Two."], window=None, reads_resident=True, kind="inattention")
    books = library()
    session = Session(lm, books)
    assert say(session, "First?").mode == "resident"
    say(session, "Second?")
    context = lm.contexts[0]
    assert len(lm.contexts) == 1
    assert context.ids[: books.num_tokens].tolist() == books.ids.tolist()
    assert len(context) - len(context.live_ids) == books.num_tokens
    assert "fox" not in lm.prompts[1]


def test_documents_beyond_ctx_name_both_counts() -> None:
    lm = ScriptedModel([], window=None, reads_resident=True, kind="inattention")
    books = library()
    with pytest.raises(ContextOverflowError) as caught:
        Session(lm, books, SessionSettings(ctx=500))
    assert f"{books.num_tokens:,}" in caught.value.message
    assert "500" in caught.value.message


def test_ctx_caps_the_prompt() -> None:
    lm = ScriptedModel(["A red umbrella."], window=2048)
    session = Session(lm, library(), SessionSettings(ctx=900, max_tokens=64))
    say(session, "What did the heron buy?")
    assert len(lm.tokenizer.encode_markup(lm.prompts[0])) + 64 <= 900


def test_a_ctx_beyond_the_window_is_not_taken_silently() -> None:
    session = Session(ScriptedModel(["A."], window=512), settings=SessionSettings(ctx=9000))
    notices = [e.text for e in session.ask("Who?") if isinstance(e, Notice)]
    assert len(notices) == 1
    assert "9,000" in notices[0] and "512" in notices[0]


def test_a_ctx_beyond_the_window_is_refused_where_it_is_set_in_a_chat() -> None:
    session = Session(ScriptedModel(["A."], window=512))
    say(session, "Who?")
    with pytest.raises(UsageError, match="9,000") as refused:
        session.set_parameter("ctx", "9000")
    assert "at most 512" in refused.value.hint
    assert session.settings.ctx is None
    assert session.set_parameter("ctx", "512") == "ctx is 512"


def test_a_full_attention_model_is_not_asked_for_more_than_it_can_hold() -> None:
    lm = ScriptedModel(["A."], window=512, kind="full")
    say(Session(lm, settings=SessionSettings(max_tokens=4000)), "Who?")
    assert lm.max_tokens[0] == 512 - len(lm.tokenizer.encode_markup(lm.prompts[0]))


def test_all_reads_every_block_and_tells_how_far_it_is() -> None:
    lm = ScriptedModel(["It rained."] * 60, window=1200)
    session = Session(lm, library(), SessionSettings(max_tokens=64, read="all"))
    events = list(session.ask("What was bought?"))
    told = [(e.done, e.total) for e in events if isinstance(e, Progress)]
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert (answer.text, answer.mode) == ("It rained.", "all")
    assert told == [(n, told[0][1]) for n in range(told[0][1] + 1)]
    seen = " ".join(" ".join(lm.prompts).split())
    for chapter in range(12):
        assert f"Chapter {chapter}." in seen
    assert len(session.turns) == 1


def test_where_no_block_has_an_answer_the_likeliest_passages_are_asked() -> None:
    blocks = 0

    class Denying(list[str]):
        def pop(self, at: object = 0) -> str:  # type: ignore[override]
            nonlocal blocks
            blocks += 1
            return "Nothing found."

    lm = ScriptedModel(Denying(), window=1200)
    session = Session(lm, library(), SessionSettings(max_tokens=64, read="all"))
    events = list(session.ask("What did the heron buy?"))
    notices = [e.text for e in events if isinstance(e, Notice)]
    assert len(notices) == 1 and "no part" in notices[0]
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert answer.mode == "recall"
    assert "red umbrella" in lm.prompts[-1]
    assert len(lm.prompts) == blocks > 2


def test_all_reads_a_short_document_at_once() -> None:
    lm = ScriptedModel(["A lantern."], window=1200)
    session = Session(
        lm, library("The fox bought a lantern."), SessionSettings(max_tokens=64, read="all")
    )
    answer = say(session, "What did the fox buy?")
    assert (answer.mode, len(answer.sources), len(lm.prompts)) == ("all", 1, 1)


def test_a_base_model_gets_passages_before_the_question() -> None:
    lm = ScriptedModel([" A lantern."], tokenizer=make_tokenizer(template=None))
    say(Session(lm, library("The fox bought a lantern.")), "What did the fox buy?")
    assert lm.prompts[0] == (
        "Passages from book.txt:\n\n[1] The fox bought a lantern.\n\n"
        "Question: What did the fox buy?\nAnswer:"
    )


def test_resident_is_refused_where_the_model_cannot_attend_documents() -> None:
    with pytest.raises(UsageError):
        Session(ScriptedModel([]), library(), SessionSettings(read="resident"))


def test_a_base_model_stops_where_it_starts_to_ask_itself() -> None:
    lm = ScriptedModel(
        [" Alice.\nQuestion: And why?\nAnswer: x"], tokenizer=make_tokenizer(template=None)
    )
    session = Session(lm)
    events = list(session.ask("Who?"))
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert (answer.text, answer.finish) == ("Alice.", "stop")
    assert "".join(e.text for e in events if isinstance(e, Delta)) == "Alice."
    assert lm.prompts[0] == "Question: Who?\nAnswer:"


def test_stop_strings_are_never_let_out_half() -> None:
    stops = StopFilter(("\nQuestion:", "###"))
    assert stops.push("A\n") == "A"
    assert stops.push("Ques") == ""
    assert stops.push("t#") == "\nQuest"
    assert stops.push("#") == ""
    assert stops.push("b\nQuestion") == "##b"
    assert not stops.stopped
    assert stops.push(":x") == ""
    assert stops.stopped
    assert stops.push("more") == ""
    assert stops.flush() == ""


def test_what_only_began_like_a_stop_string_comes_out_at_the_end() -> None:
    stops = StopFilter(("\nQuestion:",))
    assert stops.push("A\nQ") == "A"
    assert stops.flush() == "\nQ"


def test_settings_refuse_what_makes_no_sense() -> None:
    with pytest.raises(UsageError):
        SessionSettings(max_tokens=0)
    with pytest.raises(UsageError):
        SessionSettings(ctx=0)


def test_the_command_line_offers_every_read_mode() -> None:
    told = " ".join(run_nazx("ask", "--help")[0].split())
    for mode, meaning in READ_MODES.items():
        assert f" {mode} {meaning} " in told


def test_the_real_engine_reads_a_resident_document(tmp_path: Path) -> None:
    from nazx_cli import load_model

    folder = tiny_checkpoint(tmp_path / "tiny", kind="inattention", template=None)
    lm = load_model(str(folder), dtype="float32")
    texts = {}
    for book in (BOOK, BOOK[::-1]):
        books = library(book)
        answer = say(Session(lm, books, SessionSettings(max_tokens=16)), "What was bought?")
        prompt = len(lm.tokenizer.encode("Question: What was bought?\nAnswer:"))
        assert answer.mode == "resident"
        assert answer.stats.context_tokens - books.num_tokens - prompt in (15, 16)
        texts[book] = answer.text
    assert texts[BOOK] != texts[BOOK[::-1]]


def test_the_real_engine_answers_alike_with_a_kept_and_a_fresh_context(tmp_path: Path) -> None:
    from nazx_cli import load_model

    lm = load_model(str(tiny_checkpoint(tmp_path / "tiny")), dtype="float32")
    settings = SessionSettings(max_tokens=24)
    session = Session(lm, settings=settings)
    first, second = say(session, "First?"), say(session, "Second?")
    again = Session(lm, settings=settings)
    assert say(again, "First?").text == first.text
    again._context = None
    assert say(again, "Second?").text == second.text
    assert second.stats.generated <= 24
