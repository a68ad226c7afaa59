"""Accounts in the documents' own sentences: which are chosen, for which questions, how long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_helpers import ScriptedModel
from reading_helpers import alice, alice_text, library_of

from nazx_cli.documents.document import Document
from nazx_cli.errors import UsageError
from nazx_cli.names import EXTRACT
from nazx_cli.reading.library import Library
from nazx_cli.reading.passages import places_line
from nazx_cli.reading.sentences import sentence_spans, sentences, spoken
from nazx_cli.reading.summaries.digest import USUAL_WORDS, digest
from nazx_cli.reading.summaries.extract import Extractor
from nazx_cli.reading.summaries.overview import Length, wants_account
from nazx_cli.session.events import Answer, Delta, Finding
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings


def chosen(text: str, words: int, most: int | None = None) -> list[str]:
    return [text[start:stop] for start, stop in Extractor(text).choose(words, most)]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Mr. J. R. Lee met Dr. Ho. He left.", ["Mr. J. R. Lee met Dr. Ho.", "He left."]),
        ('"Go!" he said. "No."', ['"Go!" he said.', '"No."']),
        ("Wait . . . or go.", ["Wait . . . or go."]),
        (
            "# Title\nFirst one.\n- a point\n- another",
            ["# Title", "First one.", "- a point", "- another"],
        ),
        ("The long line of a paragraph that is\nbroken by its width. Next.", None),
        ("他来了。她走了！", ["他来了。", "她走了！"]),
        ("", []),
    ],
)
def test_sentences_are_told_apart(text: str, want: list[str] | None) -> None:
    if want is None:
        want = ["The long line of a paragraph that is broken by its width.", "Next."]
    assert sentences(text) == want


def test_speech_is_told_from_the_telling_in_any_quotation_marks() -> None:
    for text in ("'Don't go,' she said.", "“Don't go,” she said.", '"Don\'t go," she said.'):
        (share,) = spoken(text, sentence_spans(text))
        assert 0.45 < share < 0.65
    assert spoken("The boys' hats weren't new.", [(0, 27)]).tolist() == [0]


@pytest.mark.parametrize("words", [1, 30, 120, 300, 2000])
def test_an_extract_is_of_whole_sentences_in_order_and_keeps_to_its_length(words: int) -> None:
    extractor = Extractor(alice_text())
    spans = extractor.choose(words)
    assert spans == sorted(set(spans)) and set(spans) <= set(extractor.spans)
    count = sum(len(alice_text()[a:b].split()) for a, b in spans)
    assert len(spans) == 1 or count <= words
    if words >= 120:
        quarters = {a * 4 // len(alice_text()) for a, _ in spans}
        assert quarters == {0, 1, 2, 3} and count > 0.7 * words


def test_neither_front_matter_nor_licence_nor_headings_nor_code_is_in_an_extract() -> None:
    story = " ".join(
        f"The miller took {n} sacks of corn to the old mill by the river." for n in range(9)
    )
    text = (
        "Produced by A. Miller and the miller's river mill corn team.\n\n*** START OF THE PROJECT "
        f"GUTENBERG EBOOK THE MILL ***\n\nTHE MILLER OF THE OLD MILL BY THE RIVER\n\n{story}\n\n"
        "x = mill(corn[0], sacks={1: 2}, river=[3, 4, 5]) + miller(7); y = old(8) | mill(9).\n\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK THE MILL ***\n\n"
        "The miller may copy the corn of the old mill by the river under the licence of the mill."
    )
    assert chosen(text, 1000) == sentences(story)


def test_the_same_is_not_said_twice_where_there_is_something_else() -> None:
    same = "The king of the castle sent his soldiers to the dark forest. "
    text = same * 5 + "The queen of the island gave her sailors a chest of gold coins."
    assert "queen" in " ".join(chosen(text, 26))


def test_an_extract_about_something_has_the_sentences_that_name_it() -> None:
    (found,) = digest(alice(), "Summarize the trial of the Knave", 512).excerpts()
    naming = [p for p in found.passages if "trial" in p.text or "Knave" in p.text]
    assert 2 * len(naming) >= len(found.passages) > 3


@pytest.mark.parametrize(
    ("question", "want"),
    [
        ("summarize", Length()),
        ("Summarize in three sentences", Length(sentences=3)),
        ("Sum it up in 50 words", Length(words=50)),
        ("a summary of about 120 words, please", Length(words=120)),
        ("Give me five bullet points", Length(sentences=5, bullets=True)),
        ("A brief summary", Length(times=0.4)),
        ("Summarize in one paragraph", Length(words=80)),
        ("Summarize in 0 words", Length(words=1)),
    ],
)
def test_a_question_says_how_long(question: str, want: Length) -> None:
    assert Length.asked(question) == want


@pytest.mark.parametrize(
    ("question", "want"),
    [
        ("summarize", True),
        ("What is the plot of the story?", True),
        ("Describe the setting of the story.", True),
        ("What happens to the baby?", True),
        ("What is the main theme?", True),
        ("Who is the Duchess, and what are her characteristics?", True),
        ("What is the garden and why is it important?", True),
        ("Who is the Hatter and what is his role in the story?", True),
        ("What do we know about the Dormouse?", True),
        ("Who are the gardeners and what are they painting?", False),
        ("Why is the Queen so important to Alice?", False),
        ("What happens to the baby when Alice holds it?", False),
        ("How does the Hatter describe the tea?", False),
        ("Who stole the tarts?", False),
        ("What is the Caterpillar's advice about?", False),
        ("Why did the zeppelin explode?", False),
    ],
)
def test_questions_that_take_many_sentences_are_told(question: str, want: bool) -> None:
    assert wants_account(alice(), question) is want


def test_every_document_has_a_share_and_those_without_are_counted() -> None:
    texts = [
        f"The {w} went to the market of the town and bought a lamp. " * 8
        for w in ("fox", "owl", "hen")
    ]
    plan = digest(library_of(*texts), "summarize", 512)
    excerpts = list(plan.excerpts())
    assert [e.passages[0].document for e in excerpts] == ["a.txt", "b.txt", "c.txt"]
    assert excerpts[0].text.startswith("a.txt: The fox") and plan.left_out == 0
    assert digest(library_of(*texts * 20), "summarize", 512).left_out > 0
    (only,) = digest(library_of(*texts), "Summarize what the owl did", 512).excerpts()
    assert "owl" in only.text


def test_places_name_the_sentences_alone() -> None:
    library = library_of("One. The fox sat on a wall.\nThe owl flew over a hill. Two.")
    text = library.documents[0].document.text
    passage = library.quotation(0, text.index("The owl"), text.index(" Two"))
    assert passage.text == "The owl flew over a hill." and passage.first_line == 2
    assert places_line([passage, library.quotation(0, 0, 4)]) == "a.txt:2, 1"


def session(answers: list[str], *, writes: bool, **settings: str) -> Session:
    lm = ScriptedModel(answers, window=1200, writes_summaries=writes)
    library = Library.build([Document("alice.txt", alice_text()[:40_000], "text")], lm.tokenizer)
    return Session(lm, library, SessionSettings(max_tokens=512, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("read", ["auto", "all", "recall"])
def test_a_small_model_is_not_asked_for_a_summary(read: str) -> None:
    chat = session([], writes=False, read=read)
    events = list(chat.ask("summarize"))
    answer = events[-1]
    assert isinstance(answer, Answer) and answer.mode == EXTRACT
    assert "".join(e.text for e in events if isinstance(e, Delta)) == answer.text
    plain = " ".join(alice_text().split())
    assert all(" ".join(p.text.split()) in plain for p in answer.sources)
    assert 100 < len(answer.text.split()) <= USUAL_WORDS
    assert chat.turns[-1].answer == answer.text and not chat.turns[-1].interrupted


def test_who_words_a_summary_can_be_chosen() -> None:
    for writes, summaries, mode in (
        (False, "write", "recall"),
        (True, "extract", EXTRACT),
        (True, "auto", "recall"),
    ):
        *_, answer = session(["A girl falls."], writes=writes, summaries=summaries).ask("summarize")
        assert isinstance(answer, Answer) and answer.mode == mode
    with pytest.raises(UsageError, match="summaries"):
        SessionSettings(summaries="x")


def test_partial_answers_are_told_and_kept_where_reading_is_stopped() -> None:
    chat = session(
        ["A girl falls.", "Nothing found.", "She grows."] + ["More."] * 60, writes=True, read="all"
    )
    told = []
    events = chat.ask("summarize")
    for event in events:
        if isinstance(event, Finding):
            told.append(event.text)
        if len(told) == 2:
            break
    events.close()
    assert told == ["A girl falls.", "She grows."]
    assert chat.turns[-1].answer == "A girl falls.\n\nShe grows." and chat.turns[-1].interrupted


def test_eval_has_our_extract_beside_the_others(tmp_path: Path) -> None:
    from cli_helpers import run_nazx, tiny_checkpoint

    folder = tiny_checkpoint(tmp_path / "model", window=512)
    data = tmp_path / "data.jsonl"
    text = " ".join(f"The miller took {n} sacks of corn to the old mill." for n in range(40))
    data.write_text(json.dumps({"title": "t", "document": text, "summary": "A miller has corn."}))
    out, err, code = run_nazx("eval", str(data), "-m", str(folder), "--against", "lead", "--json")
    assert code == 0, err
    ours, lead = json.loads(out)["runs"]
    assert ours["figures"]["rouge1"]["mean"] > 0 and lead["figures"]["rouge1"]["mean"] > 0
