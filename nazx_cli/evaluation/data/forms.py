"""The forms of data that are read as they are, told apart by a record's keys alone.

A form is an entry of ``FORMS``; the first one whose keys a record has is taken. ``README.md``
beside this file describes NazX's own form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nazx_cli.evaluation.data.stories import ANSWER, SUMMARY, UNKNOWN, Question, Section, Story

Fields = Mapping[str, Any]

SUMMARIZE = "Summarize this text."
"""What is asked where the data has a summary and no question."""


@dataclass(frozen=True)
class Form:
    """A kind of record.

    keys    names that every such record has
    read    makes stories of one; ``KeyError``, ``TypeError`` or ``ValueError`` where it is broken
    joins   true where records with the same title are paragraphs of one document
    """

    name: str
    keys: frozenset[str]
    read: Callable[[Fields], Iterator[Story]]
    joins: bool = False


def _own(record: Fields) -> Iterator[Story]:
    """NazX's own form, and SQuALITY's, which is a part of it."""
    if "document" in record:
        sections: tuple[Section, ...] = (Section("1", _text(record["document"])),)
    else:
        sections = _sections(record["sections"])
    questions = tuple(_own_question(each) for each in _list(record["questions"]))
    title = _text(record.get("title") or record.get("id") or "document")
    yield Story(title, sections, questions, chat=record.get("chat") is True)


def _own_question(asked: Fields) -> Question:
    kind = SUMMARY if "summaries" in asked else ANSWER
    answers = _texts(asked["summaries"] if kind == SUMMARY else asked.get("answers", ()))
    if asked.get("unanswerable") is True:
        answers = ()
    elif not answers:
        raise ValueError(
            f'"{_text(asked["question"])[:40]}" has no answers and is not marked "unanswerable"'
        )
    tags = asked.get("tags") or {}
    return Question(
        _asked(asked["question"]),
        answers,
        kind,
        _ids(asked.get("sections", ())),
        _text(asked.get("evidence") or ""),
        _texts(asked.get("wrong", ())),
        {str(key): str(value) for key, value in tags.items()},
    )


def _fairytale(record: Fields) -> Iterator[Story]:
    """FairytaleQA (arXiv 2203.13947)."""
    questions = [
        Question(
            _asked(asked["question"]),
            _answers(asked["answers"]),
            sections=_ids(asked["sections"]),
            tags={k: str(asked[k]) for k in ("attribute", "type", "scope") if k in asked},
        )
        for asked in _list(record["qa"])
    ]
    questions = [_known(question) for question in questions]
    yield Story(_text(record["story"]), _sections(record["sections"]), tuple(questions))


def _paragraph(record: Fields) -> Iterator[Story]:
    """A paragraph of SQuAD 2.0 with its questions, some of them unanswerable."""
    questions = []
    for asked in _list(record["qa"]):
        missing = bool(asked.get("unanswerable"))
        answers = () if missing else _answers(asked["answers"])
        tags = {"answerable": "no" if missing else "yes"}
        questions.append(Question(_asked(asked["question"]), answers, ANSWER, ("1",), tags=tags))
    yield Story(_text(record["title"]), _one(record["passage"]), tuple(questions))


def _squad(record: Fields) -> Iterator[Story]:
    """SQuAD's own file: all articles in one object."""
    for article in _list(record["data"]):
        title = _text(article["title"])
        for paragraph in _list(article["paragraphs"]):
            questions = []
            for asked in _list(paragraph["qas"]):
                missing = bool(asked.get("is_impossible"))
                answers = [] if missing else [answer["text"] for answer in asked["answers"]]
                tags = {"answerable": "no" if missing else "yes"}
                found = tuple(dict.fromkeys(_texts(answers)))
                questions.append(
                    Question(_asked(asked["question"]), found, ANSWER, ("1",), tags=tags)
                )
            yield Story(title, _one(paragraph["context"]), tuple(questions))


def _squad_row(record: Fields) -> Iterator[Story]:
    """A question of SQuAD as data set libraries hand it out; no answer: unanswerable."""
    given = record["answers"]
    answers = tuple(dict.fromkeys(_texts(given["text"] if isinstance(given, Mapping) else given)))
    tags = {"answerable": "yes" if answers else "no"}
    question = Question(_asked(record["question"]), answers, ANSWER, ("1",), tags=tags)
    title = _text(record.get("title") or "document")
    yield Story(title, _one(record["context"]), (question,))


def _passage(record: Fields) -> Iterator[Story]:
    """QED: a question of a person, a paragraph, the answer and the sentence that holds it."""
    evidence = _text(record.get("answer_sentence") or "")
    question = Question(
        _asked(record["question"]), _answers(record["answers"]), ANSWER, ("1",), evidence
    )
    yield Story(_text(record["title"]), _one(record["passage"]), (_known(question),))


def _yes_or_no(record: Fields) -> Iterator[Story]:
    """BoolQ: a question that is answered by yes or no."""
    answer = record["answer"]
    if isinstance(answer, bool):
        answer = "yes" if answer else "no"
    question = Question(_asked(record["question"]), (_text(answer),), ANSWER, ("1",))
    yield Story(_text(record.get("title") or "document"), _one(record["passage"]), (question,))


def _onestop(record: Fields) -> Iterator[Story]:
    """OneStopQA, at its advanced level, which is the text as it was written."""
    questions = tuple(
        Question(
            _asked(asked["question"]),
            (_text(asked["answer"]),),
            ANSWER,
            ("1",),
            wrong=_texts(asked["wrong"]),
        )
        for asked in _list(record["qa"])
    )
    yield Story(_text(record["title"]), _one(record["advanced"]), questions)


def _meeting(record: Fields) -> Iterator[Story]:
    """QMSum: what was said in a meeting, and queries that are answered by summaries."""
    lines = [f"{_text(speaker)}: {_text(said)}" for speaker, said in _list(record["transcript"])]
    questions = tuple(
        Question(
            _asked(asked["query"]),
            _answers([asked["answer"]]),
            SUMMARY,
            tags={"kind": str(asked.get("kind", ""))},
        )
        for asked in _list(record["queries"])
    )
    title = _text(record.get("id") or "meeting")
    yield Story(title, (Section("1", "\n".join(lines)),), tuple(map(_known, questions)))


def _summarized(record: Fields) -> Iterator[Story]:
    """A document and its summary."""
    question = Question(SUMMARIZE, _answers([record["summary"]]), SUMMARY)
    title = _text(record.get("title") or record.get("id") or "document")
    yield Story(title, _one(record["document"]), (_known(question),))


FORMS: tuple[Form, ...] = (
    Form("FairytaleQA", frozenset({"story", "sections", "qa"}), _fairytale),
    Form("OneStopQA", frozenset({"title", "advanced", "qa"}), _onestop, joins=True),
    Form("SQuAD paragraph", frozenset({"title", "passage", "qa"}), _paragraph, joins=True),
    Form("SQuAD file", frozenset({"data"}), _squad, joins=True),
    Form("SQuAD row", frozenset({"context", "question", "answers"}), _squad_row, joins=True),
    Form("QED", frozenset({"title", "question", "passage", "answers"}), _passage, joins=True),
    Form("BoolQ", frozenset({"question", "passage", "answer"}), _yes_or_no, joins=True),
    Form("QMSum", frozenset({"transcript", "queries"}), _meeting),
    Form("NazX", frozenset({"sections", "questions"}), _own),
    Form("NazX or SQuALITY", frozenset({"document", "questions"}), _own),
    Form("NazX, of a file", frozenset({"file", "questions"}), _own),
    Form("document and summary", frozenset({"document", "summary"}), _summarized),
)


def form_of(record: Fields) -> Form | None:
    """The form of a record; None where it has none."""
    return next((form for form in FORMS if form.keys <= record.keys()), None)


def _text(value: Any) -> str:
    if isinstance(value, int):  # ids may be numbers
        value = str(value)
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no text")
    return value


def _asked(value: Any) -> str:
    if not (question := _text(value).strip()):
        raise ValueError("a question is empty")
    return question


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{str(value)[:40]!r} is no list")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(text for each in _list(value) if (text := _text(each).strip()))


def _known(question: Question) -> Question:
    """``question``, marked as one that cannot be judged where the data lacks its answer."""
    return question if question.answers else replace(question, kind=UNKNOWN)


def _answers(value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_texts(value)))


def _one(text: Any) -> tuple[Section, ...]:
    return (Section("1", _text(text)),)


def _sections(value: Any) -> tuple[Section, ...]:
    return tuple(Section(_text(each["id"]).strip(), _text(each["text"])) for each in _list(value))


def _ids(value: Any) -> tuple[str, ...]:
    """Section ids, which files hold as a list, a number or as ``"3,4"``."""
    if isinstance(value, list | tuple):
        return tuple(_text(each).strip() for each in value)
    return tuple(part for part in re.split(r"\s*,\s*", _text(value).strip()) if part)
