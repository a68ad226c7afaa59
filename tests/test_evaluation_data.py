"""Forms of data, drawing questions, and the documents that they are asked about."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nazx_cli import names
from nazx_cli.errors import DocumentError
from nazx_cli.evaluation.data.files import draw, read_data
from nazx_cli.evaluation.data.given import ASK, AUTO, CHAT, GIVEN
from nazx_cli.evaluation.data.stories import Question, Section, Story

FAIRYTALE = {
    "story": "the-fox",
    "sections": [{"id": "1", "text": "A fox ran."}, {"id": "2", "text": "He was old."}],
    "qa": [
        {"sections": "1, 2", "question": "Who ran?", "answers": ["a fox", "a fox"], "type": "x"},
        {"sections": "2", "question": "Was he old?", "answers": ["yes"]},
    ],
}
SQUAD = {
    "title": "Normans",
    "passage": "They came.",
    "qa": [
        {"question": "Who?", "answers": ["They"], "unanswerable": False},
        {"question": "Why?", "answers": [], "unanswerable": True},
    ],
}
SQUAD_FILE = {
    "version": "v2.0",
    "data": [
        {
            "title": "Normans",
            "paragraphs": [
                {
                    "context": "They came.",
                    "qas": [
                        {"question": "Who?", "answers": [{"text": "They", "answer_start": 0}]},
                        {"question": "Why?", "answers": [], "is_impossible": True},
                    ],
                },
                {"context": "They saw.", "qas": [{"question": "And?", "answers": [{"text": "x"}]}]},
            ],
        }
    ],
}
ROW = {"title": "T", "context": "C", "question": "Q?", "answers": {"text": ["a"]}}
QED = {
    "title": "O Canada",
    "question": "when",
    "passage": "In 1980. Not before.",
    "answers": ["1980"],
    "answer_sentence": "In 1980.",
}
BOOLQ = {"title": "E", "question": "is it", "passage": "It is.", "answer": "yes"}
ONESTOP = {
    "title": "B",
    "elementary": "x",
    "intermediate": "y",
    "advanced": "z",
    "qa": [{"question": "Q?", "answer": "right", "wrong": ["w1", "w2", "w3"]}],
}
SQUALITY = {
    "id": "1",
    "document": "Long.",
    "questions": [{"question": "Plot?", "summaries": ["s", "t"]}],
}
QMSUM = {
    "id": "m",
    "topics": [],
    "transcript": [["A", "hello"], ["B", "bye"]],
    "queries": [{"query": "Summarize", "answer": "Talk.", "kind": "general"}],
}
SUMMARY = {"title": "T", "document": "D", "summary": "S"}
OWN = {
    "title": "mine",
    "sections": [{"id": 1, "text": "One."}, {"id": 2, "text": "Two."}],
    "chat": True,
    "questions": [
        {"question": "What?", "answers": ["one"], "sections": [1], "evidence": "One."},
        {"question": "Why?", "unanswerable": True},
        {"question": "All?", "summaries": ["one and two"], "tags": {"hard": True}},
    ],
}


def write(folder: Path, *records: object, name: str = "x.bin") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def read(folder: Path, *records: object) -> tuple[Story, ...]:
    return read_data([write(folder, *records)]).stories


def test_fairytaleqa_has_sections_and_each_reference_once(tmp_path: Path) -> None:
    (story,) = read(tmp_path, FAIRYTALE)
    assert story.text == "A fox ran.\n\nHe was old."
    first = story.questions[0]
    assert (first.answers, first.sections, first.tags) == (("a fox",), ("1", "2"), {"type": "x"})
    assert [story.text[a:b] for a, b in story.spans(("2",))] == ["He was old."]


def test_squad_paragraphs_of_an_article_become_its_sections(tmp_path: Path) -> None:
    (story,) = read(tmp_path, SQUAD, {**SQUAD, "passage": "They saw."})
    assert [section.text for section in story.sections] == ["They came.", "They saw."]
    assert [question.sections for question in story.questions] == [("1",)] * 2 + [("2",)] * 2
    assert [bool(question.answers) for question in story.questions] == [True, False] * 2
    (nested,) = read(tmp_path, SQUAD_FILE)
    assert nested.sections == story.sections and nested.questions[:2] == story.questions[:2]
    path = tmp_path / "pretty.json"
    path.write_text(json.dumps(SQUAD_FILE, indent=2))
    assert read_data([path]).stories == (nested,)


def test_the_other_forms(tmp_path: Path) -> None:
    row, qed, boolq, onestop, squality, qmsum, summary = read(
        tmp_path, ROW, QED, BOOLQ, ONESTOP, SQUALITY, QMSUM, SUMMARY
    )
    assert row.questions[0].answers == ("a",)
    assert qed.questions[0].evidence == "In 1980."
    assert boolq.questions[0].answers == ("yes",)
    assert onestop.text == "z" and onestop.questions[0].wrong == ("w1", "w2", "w3")
    assert squality.questions[0] == Question("Plot?", ("s", "t"), "summary")
    assert qmsum.text == "A: hello\nB: bye" and qmsum.questions[0].kind == "summary"
    assert summary.questions[0].answers == ("S",)


def test_our_own_form_has_chats_unanswerable_questions_and_tags(tmp_path: Path) -> None:
    (story,) = read(tmp_path, OWN)
    first, second, third = story.questions
    assert story.chat and story.title == "mine"
    assert (first.sections, first.evidence) == (("1",), "One.")
    assert second.answers == () and third.kind == "summary" and third.tags == {"hard": "True"}


def test_paragraphs_asked_about_twice_are_one_section(tmp_path: Path) -> None:
    (story,) = read(tmp_path, QED, {**QED, "question": "what"})
    assert len(story.sections) == 1 and len(story.questions) == 2


def test_questions_without_an_answer_in_the_data_are_left_out_and_counted(tmp_path: Path) -> None:
    data = read_data([write(tmp_path, QED, {**QED, "answers": [], "title": "other"})])
    assert [len(story.questions) for story in data.stories] == [1, 0]
    assert data.left_out == 1


def test_plain_text_is_told_from_records_by_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "story.jsonl"
    path.write_text("Once upon a time.")
    assert read_data([path]).texts == (("story.jsonl", "Once upon a time."),)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"story": 1'], ":1 is no JSON"),
        (['{"what": 1}'], ":1 has none of the forms"),
        ([json.dumps(QED), "[1]"], ":2 has none of the forms"),
        ([json.dumps({**QED, "question": " "})], "a question is empty"),
        ([json.dumps({**QED, "passage": " \n"})], "no text to ask about"),
        ([json.dumps({**SQUALITY, "document": ""})], "no text to ask about"),
        ([json.dumps({**FAIRYTALE, "qa": [{"question": "Who?"}]})], "it has no 'answers'"),
        ([json.dumps({**SQUALITY, "questions": [{"question": "Who?"}]})], "not marked"),
        ([""], "is empty"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(DocumentError) as error:
        read_data([path])
    assert message in error.value.message and error.value.hint
    assert "\n" not in error.value.message


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DocumentError):
        read_data([tmp_path / "none"])


def many(sizes: list[int]) -> list[Story]:
    return [
        Story(
            f"s{i}",
            (Section("1", f"text {i}"),),
            tuple(Question(f"q{j}", ("a",)) for j in range(size)),
        )
        for i, size in enumerate(sizes)
    ]


def test_drawn_questions_are_spread_over_documents_and_kept_in_order() -> None:
    stories = many([30, 0, 5, 1, 30])
    drawn = draw(stories, 20, seed=1)
    counts = [len(story.questions) for story in drawn]
    assert sum(counts) == 20 and counts[1] == 0 and counts[3] == 1 and counts[2] == 5
    assert abs(counts[0] - counts[4]) <= 1
    assert [story.text for story in drawn] == [story.text for story in stories]
    numbers = [int(q.text[1:]) for q in drawn[0].questions]
    assert numbers == sorted(numbers) and numbers != list(range(len(numbers)))
    fewer = draw(stories, 7, seed=1)
    for few, more in zip(fewer, drawn, strict=True):
        assert all(question in more.questions for question in few.questions)
    assert draw(stories, 20, seed=2) != drawn
    assert draw(stories, None, 1) == tuple(stories)
    assert sum(len(s.questions) for s in draw(stories, 1000, 0)) == 66


def test_chats_are_drawn_whole() -> None:
    stories = [replace(story, chat=True) for story in many([4, 4, 4])]
    assert sorted(len(s.questions) for s in draw(stories, 5, 0)) == [0, 4, 4]


def test_sections_stories_and_books_hold_the_right_section_where_they_say(tmp_path: Path) -> None:
    stories = read(tmp_path, FAIRYTALE, SQUAD, {**SQUAD, "passage": "They saw."}, SQUALITY)
    for name, make in GIVEN.items():
        asked = [
            (batch, each) for batch in make(stories, "ask", ()) for thread in batch.threads
            for each in thread
        ]  # fmt: skip
        assert len(asked) == 7
        for batch, each in asked:
            wanted = [s.text for s in each.story.sections if s.id in each.question.sections]
            found = [batch.text[a:b] for a, b in each.gold]
            assert "\n\n".join(found) == "\n\n".join(wanted), name
    (book,) = GIVEN["book"](stories, "ask", ())
    assert "the fox\n\nA fox ran." in book.text
    sections = list(GIVEN["section"](stories, "ask", ()))
    assert [len(batch.threads) for batch in sections] == [1, 1, 2, 2, 1]
    assert sections[1].text == "He was old."


def test_turns_make_one_conversation_of_a_story(tmp_path: Path) -> None:
    stories = read(tmp_path, FAIRYTALE, OWN)
    for turns, want in (("ask", [1, 1, 1, 1, 1]), ("chat", [2, 3]), ("auto", [1, 1, 3])):
        for name in ("story", "book"):
            threads = [t for batch in GIVEN[name](stories, turns, ()) for t in batch.threads]
            assert [len(thread) for thread in threads] == want


def test_the_names_that_the_command_line_offers_are_those_that_there_are() -> None:
    from nazx_cli.cli.judge.runs import WAYS
    from nazx_cli.evaluation.contestants.extracts import EXTRACTS

    assert tuple(GIVEN) == names.GIVEN
    assert {AUTO, ASK, CHAT} == set(names.TURNS)
    assert {*WAYS, *EXTRACTS, "passages"} == set(names.RIVALS)


def test_a_device_that_never_ends_is_refused() -> None:
    with pytest.raises(DocumentError, match="/dev/zero: it is a device"):
        read_data([Path("/dev/zero")])


POEM = "one\ntwo\n\nfour\nfive"


def of_file(tmp_path: Path, **record: object) -> Story:
    (tmp_path / "poem.txt").write_text(POEM, encoding="utf-8")
    line = {"file": "poem.txt", "questions": [{"question": "?", "answers": ["a"]}]} | record
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps(line), encoding="utf-8")
    (story,) = read_data([data]).stories
    return story


def test_a_record_may_name_the_file_that_it_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (of_file(tmp_path).text, of_file(tmp_path).title) == (POEM, "poem")
    assert of_file(tmp_path, title="Poem").title == "Poem"
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "page.html").write_text(
        "<html><body><p>Hello</p></body></html>", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path / "here")
    assert of_file(tmp_path, file="page.html").text.strip() == "Hello"


def test_sections_of_a_file_are_its_lines(tmp_path: Path) -> None:
    def sections(*lines: object) -> list[tuple[str, str]]:
        named = [{"id": str(number), "lines": each} for number, each in enumerate(lines)]
        return [(s.id, s.text) for s in of_file(tmp_path, sections=named).sections]

    assert sections([1, 5]) == [("0", POEM)]
    assert sections([4, 4], [2, 2]) == [
        ("lines 1-1", "one"),
        ("1", "two"),
        ("lines 3-3", ""),
        ("0", "four"),
        ("lines 5-5", "five"),
    ]
    for broken in ([0, 1], [2, 1], [5, 6], ["1", 2], [1], 3, None):
        with pytest.raises(DocumentError, match="broken as NazX has it"):
            sections(broken)
    with pytest.raises(DocumentError, match="lines 2 to 3 are in another section"):
        sections([1, 2], [2, 3])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"gone\.txt cannot be read: No such file"):
        of_file(tmp_path, file="gone.txt")
    (tmp_path / "x.bin").write_bytes(bytes(range(256)) * 8)
    with pytest.raises(DocumentError, match=r"x\.bin is"):
        of_file(tmp_path, file="x.bin")
