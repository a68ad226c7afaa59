"""Where an answer stands: found by its words, of models that do not tell."""

from __future__ import annotations

import io
import json
import math
import random
from pathlib import Path

import pytest
from cli_helpers import ScriptedModel

from nazx_cli.documents.document import Document
from nazx_cli.evaluation.contestants.nazx import NazxContestant, Shelf
from nazx_cli.reading.attribution import MOST, Grounds, attributed, quoted
from nazx_cli.reading.library import Library
from nazx_cli.reading.passages import Passage, place
from nazx_cli.reading.sentences import sentences
from nazx_cli.reading.words import QUESTION_WORDS, STOP_WORDS, stem, words
from nazx_cli.session.events import Answer, Notice, Reading
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings
from nazx_cli.ui.terminal.screen import Screen
from nazx_cli.ui.turn import show_turn

GARDEN = Passage(
    "alice.txt",
    10,
    12,
    0,
    40,
    "The Queen had a garden. The gardeners painted the roses red. Alice asked why.",
)
TEA = Passage(
    "alice.txt",
    50,
    52,
    90,
    130,
    "A Dormouse was fast asleep at the table. The Hatter poured tea on its nose.",
)
COURT = Passage("trial.txt", 1, 2, 200, 230, "The Knave stole the tarts. The King was the judge.")
ALL = (GARDEN, TEA, COURT)
DOCUMENTS = [
    Document("alice.txt", f"{GARDEN.text}\n\n{TEA.text}", "text"),
    Document("trial.txt", COURT.text, "text"),
]


@pytest.mark.parametrize(
    ("answer", "question", "expected"),
    [
        ("The Dormouse.", "Who is asleep?", [(TEA, "A Dormouse was fast asleep at the table.")]),
        (
            "The roses were painted red. The King judged it.",
            "What happened?",
            [(GARDEN, "The gardeners painted the roses red."), (COURT, "The King was the judge.")],
        ),
        ("A submarine of Captain Nemo.", "Who is asleep?", []),
        ("", "Who is asleep?", []),
        ("Yes.", "Did the Knave steal the tarts?", []),
        ("The Knave.", "Is it the Knave?", [(COURT, "The Knave stole the tarts.")]),
    ],
)
def test_an_answer_stands_on_the_sentences_that_have_its_words(
    answer: str, question: str, expected: list[tuple[Passage, str]]
) -> None:
    assert list(attributed(answer, question, ALL)) == expected


def test_each_sentence_is_named_once_and_few_are() -> None:
    said = "The Knave stole tarts. It was the Knave who stole the tarts."
    assert len(attributed(said, "Who?", ALL)) == 1
    many = [Passage("a.txt", n, n, 10 * n, 10 * n + 9, f"Word{n} stands here.") for n in range(9)]
    told = " ".join(f"It was word{n}." for n in range(9))
    assert len(attributed(told, "Which?", many)) == MOST
    assert attributed("The Knave.", "Who?", ()) == ()
    assert attributed("The Knave.", "Who?", (Passage("a.txt", 1, 1, 0, 1, "  "),)) == ()


def by_hand(passages: list[Passage], answer: str, question: str) -> tuple[int, str, float]:
    """The same choice, each sentence weighed by itself."""

    def stems(text: str) -> set[str]:
        return {stem(word) for word in words(text)}

    def content(text: str) -> set[str]:
        return stems(text) - STOP_WORDS or stems(text)

    every = [stems(sentence) for passage in passages for sentence in sentences(passage.text)]

    def weight(own: set[str]) -> float:
        return math.fsum(
            math.log(1 + len(every) / (sum(w in each for each in every) or 0.5)) for w in own
        )

    shaping = {stem(word) for word in QUESTION_WORDS}
    said, asked = content(answer), content(question) - shaping

    def worth(text: set[str]) -> float:
        return 3 * weight(text & said) + weight(text & asked - said)

    best = max(
        (
            worth(stems(sentence)) + worth(stems(passage.text)) / 2 - len(stems(sentence)) / 100,
            -n,
            -m,
        )
        for n, passage in enumerate(passages)
        for m, sentence in enumerate(sentences(passage.text))
    )
    passage = passages[-best[1]]
    own = said - asked - shaping or said or asked
    share = weight(own & stems(passage.text)) / weight(own) if own else 0.0
    return -best[1], sentences(passage.text)[-best[2]], share


@pytest.mark.parametrize("seed", range(30))
def test_words_weigh_by_their_rarity_in_the_sentence_and_around_it(seed: int) -> None:
    rng = random.Random(seed)
    vocabulary = ["king", "Queens", "painted", "rose", "the", "why", "garden", "of", "described"]

    def text(most: int) -> str:
        count = rng.randint(1, most)
        return " ".join(
            " ".join(rng.choices(vocabulary, k=rng.randint(1, 7))).capitalize() + "."
            for _ in range(count)
        )

    passages = [Passage("a.txt", n, n, n, n + 1, text(5)) for n in range(rng.randint(1, 6))]
    answer, question = text(1), text(1)
    number, sentence, share = by_hand(passages, answer, question)
    found = Grounds(passages).best(answer, question)
    assert found is not None
    assert (found.sentence, found.share) == (sentence, pytest.approx(share))
    assert found.passage.text == passages[number].text


def test_a_sentence_is_quoted_on_one_line_though_nothing_fits() -> None:
    assert quoted(GARDEN, "Nothing of it") == "Alice asked why."  # the shortest
    lines = Passage("a.txt", 1, 2, 0, 9, "Some line of\nthe  old\ttext.")
    assert quoted(lines, "text") == "Some line of the old text."
    assert quoted(Passage("a.txt", 1, 1, 0, 1, ""), "text") == ""


@pytest.mark.parametrize("at", [0, 1, 79, 80, 150, 299])
def test_of_a_sentence_without_end_the_part_with_the_answer_is_quoted(at: int) -> None:
    parts = [f"filler{n}" for n in range(300)]
    parts[at] = "Dormouse"
    passage = Passage("a.txt", 1, 1, 0, 300, " ".join(parts))
    shown = quoted(passage, "The Dormouse.").split()
    first = max(0, at - 79)
    assert shown == parts[first : first + 80]
    assert quoted(passage, "Nobody").split() == parts[:80]


def test_a_quotation_is_shown_with_its_own_lines() -> None:
    text = "\n\nOne.\nTwo is (so)\nto say  here.\n\nThree."
    passage = Passage("a.txt", 7, 11, 0, 20, text)
    shown = {
        quote: place(passage, quote)
        for quote in ("One.", "Two is (so) to say here.", "Three.", "Four.", "", " ")
    }
    assert list(shown.values()) == [":7", ":8-9", ":11", ":7-11", ":7-11", ":7-11"]
    paged = Passage("a.pdf", 7, 11, 0, 20, text, "page 2", "page 3")
    assert place(paged, "Three.") == ", pages 2-3"


@pytest.mark.parametrize("mode", ["recall", "resident", "tail"])
def test_of_any_model_the_likely_source_is_named(mode: str) -> None:
    session = about_alice(["A Dormouse was asleep.", "I cannot tell."], mode)
    out, err = io.StringIO(), io.StringIO()
    outcome = show_turn(session.ask("Who is asleep?"), "m", Screen(out, err, sources=True))
    assert out.getvalue() == "A Dormouse was asleep.\n"
    named = "likely source: alice.txt:3  “A Dormouse was fast asleep at the table.”\n"
    assert named in err.getvalue()
    assert ("given to the model" in err.getvalue()) is (mode != "resident")
    data = json.loads(json.dumps(outcome.as_data("m")))
    assert data["quote"] == "A Dormouse was fast asleep at the table."
    assert (data["cited"]["file"], data["likely"], data["confidence"]) == ("alice.txt", True, None)
    assert data["cited"] in data["sources"]
    answer = list(session.ask("Who wept?"))[-1]
    assert isinstance(answer, Answer) and answer.quotations == () and not answer.cites


def test_it_is_told_that_the_documents_have_not_whom_a_question_names() -> None:
    lm = ScriptedModel(["A captain.", "The King."])
    text = "The old King of that country sat all day in his garden and grew roses there. " * 9
    session = Session(lm, Library.build([Document("a.txt", text, "text")], lm.tokenizer))  # type: ignore[arg-type]
    events = list(session.ask("Who is Captain Nemo?"))
    assert [each.text for each in events if isinstance(each, Notice)] == [
        'the documents have no "Nemo"'
    ]
    assert isinstance(events[-1], Answer) and events[-1].text == "A captain."
    assert not any(isinstance(each, Notice) for each in session.ask("Who is the King?"))


def test_passages_keep_the_numbers_that_an_answer_may_speak_of() -> None:
    session = about_alice(["The Knave, as [2] tells."], "recall")
    reading, *_, answer = session.ask("Who stole the tarts, and who is asleep?")
    assert isinstance(reading, Reading) and isinstance(answer, Answer)
    assert len(answer.sources) > 1 and answer.sources == reading.passages
    assert answer.cited == answer.sources[-1] and answer.cited.document == "trial.txt"


def test_an_answer_about_the_whole_or_without_documents_has_no_likely_source() -> None:
    session = about_alice(["A Dormouse was asleep."], "recall", summaries="write")
    answer = list(session.ask("Summarize the story."))[-1]
    assert isinstance(answer, Answer) and answer.quotations == ()
    alone = list(Session(ScriptedModel(["A Dormouse."])).ask("Who is asleep?"))[-1]
    assert isinstance(alone, Answer) and (alone.quotations, alone.sources) == ((), ())


def test_the_judge_takes_the_likely_source_for_the_citation(tmp_path: Path) -> None:
    lm = ScriptedModel(["A Dormouse was asleep.", "A submarine."])
    shelf = Shelf("scripted", lambda: lm, tmp_path)  # type: ignore[arg-type,return-value]
    contestant = NazxContestant(shelf, SessionSettings(read="recall"), {}, "scripted")
    (reply,) = contestant.converse(DOCUMENTS[:1], ["Who is asleep?"])
    assert reply.cites and reply.cited is not None and TEA.text in reply.cited.text
    (reply,) = contestant.converse(DOCUMENTS[:1], ["Who wept?"])
    assert reply.cites and reply.cited is None


def about_alice(answers: list[str], mode: str, **settings: object) -> Session:
    """A session about two documents with a model that has no reading adapter."""
    resident = mode == "resident"
    kind, window = ("inattention", None) if resident else ("windowed", 2048)
    lm = ScriptedModel(answers, window=window, reads_resident=resident, kind=kind)
    library = Library.build(DOCUMENTS, lm.tokenizer)
    return Session(lm, library, SessionSettings(read=mode, **settings))  # type: ignore[arg-type]
