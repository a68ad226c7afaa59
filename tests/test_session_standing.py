"""Documents that fit a prompt whole stay in it: a follow-up computes only what is new."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_helpers import ScriptedModel
from models import model

from nazx_cli.documents.document import Document
from nazx_cli.reading.library import Library
from nazx_cli.session.events import Answer
from nazx_cli.session.files import read_new
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings

BOOK = "The heron bought an umbrella for her cat. It rained for a week. The fox stayed at home."


def session_about(book: str, lm: ScriptedModel, **settings: object) -> Session:
    library = Library.build([Document("book.txt", book, "text")], lm.tokenizer)
    return Session(lm, library, SessionSettings(max_tokens=32, **settings))  # type: ignore[arg-type]


def ask(session: Session, question: str) -> Answer:
    answer = list(session.ask(question))[-1]
    assert isinstance(answer, Answer)
    return answer


@pytest.mark.parametrize("kind", ["windowed", "full"])
def test_a_follow_up_goes_on_from_what_was_said(kind: str) -> None:
    lm = ScriptedModel([" An umbrella.", " At home.", " All of it."], window=1400, kind=kind)
    session = session_about(BOOK, lm)
    first = ask(session, "What did the heron buy?")
    second = ask(session, "Where did the fox stay?")
    third = ask(session, "Summarize.")
    assert [p.text for p in first.sources] == [BOOK]
    assert first.sources == second.sources == third.sources
    assert [answer.mode for answer in (first, second, third)] == ["recall"] * 3
    for before, after in zip(lm.prompts, lm.prompts[1:], strict=False):
        assert after.startswith(before)
    assert [prompt.count(BOOK) for prompt in lm.prompts] == [1, 1, 1]
    assert "Using only the text above, answer: Where did the fox stay?" in lm.prompts[1]
    assert "About the whole of the text above, answer: Summarize." in lm.prompts[2]


def test_only_the_new_tokens_run_through_the_layers() -> None:
    lm = model("llama", "full")
    library = Library.build([Document("book.txt", BOOK, "text")], lm.tokenizer)
    session = Session(lm, library, SessionSettings(max_tokens=3))
    ran: list[int] = []
    hidden = lm.decoder.hidden
    lm.decoder.hidden = lambda h, attend: (ran.append(len(h)), hidden(h, attend))[1]  # type: ignore[method-assign]
    ask(session, "Who?")
    before = max(ran)
    ran.clear()
    ask(session, "Where?")
    assert 0 < max(ran) < before / 2


def test_documents_that_changed_are_given_anew(tmp_path: Path) -> None:
    lm = ScriptedModel([" An umbrella.", " At home.", " A coat."], window=1400)
    session = session_about(BOOK, lm)
    ask(session, "What did the heron buy?")
    (tmp_path / "other.txt").write_text("The owl bought a coat.")
    session.add(read_new([str(tmp_path / "other.txt")], session.state.documents, lm.tokenizer))
    ask(session, "What did the owl buy?")
    assert "bought a coat" in lm.prompts[-1]
    assert lm.prompts[-1].count(BOOK) >= 1


def test_what_no_longer_fits_beside_the_conversation_is_given_anew() -> None:
    long = " It rained on the heron, and on the fox too." * 6
    lm = ScriptedModel([long] * 40, window=900)
    session = session_about(BOOK, lm)
    for number in range(12):
        answer = ask(session, f"What did the heron buy, for the time number {number}?")
        assert BOOK in lm.prompts[-1]
        assert BOOK in "".join(p.text for p in answer.sources if p.document == "book.txt")
        assert len(lm.tokenizer.encode_markup(lm.prompts[-1])) <= 900


def test_a_document_that_does_not_fit_is_searched_for_each_question() -> None:
    lm = ScriptedModel([" An umbrella.", " At home."], window=500)
    session = session_about(BOOK + "\n\n" + "\n\n".join("It rained. " * 20 for _ in range(40)), lm)
    ask(session, "What did the heron buy?")
    second = ask(session, "Where did the fox stay?")
    assert "Using only these passages, answer: Where did the fox stay?" in lm.prompts[-1]
    assert any("fox" in p.text for p in second.sources)
