"""Measures against slow formulas of their own, against rouge-score, and on answers that tell."""

from __future__ import annotations

import json
import random
import re
import string

import pytest

from nazx_cli.evaluation.calibration import calibrate
from nazx_cli.evaluation.measures import MEASURES, reaches
from nazx_cli.evaluation.records import Read, Record
from nazx_cli.evaluation.words import (
    KnownWords,
    exact_match,
    holds,
    normalized,
    rouge,
    says_not,
    token_f1,
    yes_or_no,
)

VOCABULARY = ["the", "The", "a", "An", "cat", "Cat's", "cat,", "--", "dog", "14", "é", ".", "theme"]


def slow_normalized(text: str) -> list[str]:
    """Character by character and word by word, as SQuAD describes it."""
    kept = ""
    for character in text.lower():
        if character not in string.punctuation:
            kept += character
    return [word for word in kept.split() if word not in ("a", "an", "the")]


def slow_f1(answer: str, reference: str) -> float:
    got, wanted = slow_normalized(answer), slow_normalized(reference)
    if not got or not wanted:
        return 1.0 if got == wanted else 0.0
    left = list(wanted)
    same = 0
    for word in got:
        if word in left:
            left.remove(word)
            same += 1
    if not same:
        return 0.0
    precision, recall = same / len(got), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


def random_text(draw: random.Random, most: int = 7) -> str:
    return " ".join(draw.choices(VOCABULARY, k=draw.randint(0, most)))


def test_f1_and_exact_match_are_those_of_a_slow_formula_on_random_texts() -> None:
    draw = random.Random(5)
    seen_empty = False
    for _ in range(3000):
        answer, reference = random_text(draw), random_text(draw)
        seen_empty |= not slow_normalized(answer)
        assert normalized(answer).split() == slow_normalized(answer)
        assert token_f1(answer, reference) == pytest.approx(slow_f1(answer, reference), abs=1e-12)
        same = slow_normalized(answer) == slow_normalized(reference)
        assert exact_match(answer, reference) == float(same)
    assert seen_empty


def test_known_figures_of_squad() -> None:
    assert token_f1("The Norman Conquest", "norman conquest.") == 1
    assert token_f1("in France", "France") == pytest.approx(2 / 3)
    assert token_f1("", "") == 1 and token_f1("", "France") == 0 and token_f1("the", "France") == 0


def longest_common(a: list[str], b: list[str]) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            same = table[i][j] + 1
            table[i + 1][j + 1] = same if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_rouge_is_the_library_s_and_agrees_with_the_longest_common_subsequence() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    draw = random.Random(2)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for _ in range(200):
        answer, first, second = (random_text(draw) for _ in range(3))
        both = scorer.score_multi([first, second], answer)
        assert rouge(answer, [first, second], stemmed=True)["rouge2"] == both["rouge2"].fmeasure
        a, b = (re.findall("[a-z0-9]+", text.lower()) for text in (answer, first))
        common = longest_common(a, b)
        want = 2 * common / (len(a) + len(b)) if common else 0.0
        assert rouge(answer, [first], stemmed=False)["rougeL"] == pytest.approx(want)


@pytest.mark.parametrize(
    "answer",
    [
        "The document does not say.",
        "The passages don't mention the name of the king.",
        "The given text does not explicitly state it.",
        "Nothing found.",
        "I don't know.",
        "It is not stated in the passages.",
        "Unfortunately, the story doesn’t tell.",
        "There is no information about that.",
    ],
)
def test_an_answer_that_tells_that_it_is_not_there_is_known(answer: str) -> None:
    assert says_not(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "He did not say.",
        "The king does not say a word to his son.",
        "The story of the fox who did not tell.",
        "Nothing but a stone.",
        "No.",
        "She knew that the document does not say it.",
        "The book was lost.",
    ],
)
def test_other_answers_are_not_taken_for_one(answer: str) -> None:
    assert not says_not(answer)


def test_a_text_holds_a_reference_if_it_has_all_its_words_of_content() -> None:
    text = "The old king rode to the castles of his daughters."
    assert holds(text, ["an old king"]) is True
    assert holds(text, ["castle"]) is True, "by stems"
    assert holds(text, ["the young king"]) is False
    assert holds(text, ["the young king", "kings"]) is True, "one reference is enough"
    assert holds(text, ["yes"]) is None and holds(text, []) is None
    assert holds("", ["king"]) is False


def test_yes_and_no_are_found_as_words() -> None:
    assert yes_or_no("Yes, it does.") == "yes"
    assert yes_or_no("Nobody knows. No.") == "no"
    assert yes_or_no("Nothing") == ""


def test_names_are_told_from_words() -> None:
    known = KnownWords("Alice saw the Queen. The queen's cat and the Mock Turtle ran 14 miles.")
    assert known.names("Captain Grimjack met Alice.") == ("Captain", "Grimjack", "Alice")
    assert known.names("However, she ran.") == (), "cannot be told from a word"
    assert known.names("Alice ran 15 miles with the Queen.") == ("Alice", "15"), "queen is a word"
    assert known.knows("Alices") and known.knows("14") and not known.knows("15")
    assert known.names("") == ()
    listed = "They were:\n1. Alice, who ran 14 miles. 2. The cat [3] and 5) dogs"
    assert known.names(listed) == ("Alice", "14"), "numbers of a list say nothing"


def record(**values: object) -> Record:
    base: dict[str, object] = {
        "run": "r",
        "item": "i",
        "contestant": "c",
        "given": "story",
        "story": "s",
        "kind": "answer",
        "question": "Who?",
        "references": ("the king",),
        "answer": "King.",
    }
    return Record(**(base | values))  # type: ignore[arg-type]


def score(name: str, **values: object) -> float | None:
    return next(m for m in MEASURES if m.name == name).score(record(**values))


def test_the_best_of_several_references_counts() -> None:
    assert score("f1", references=("a queen", "the king")) == 1
    assert score("exact_match", references=("a queen", "the king")) == 1
    assert score("rouge_l", references=("a queen", "king")) == 1


def test_refusals_are_counted_apart_and_score_nothing() -> None:
    refusal = "The document does not say."
    assert score("refused_wrongly", answer=refusal) == 1 and score("refused_wrongly") == 0
    assert score("f1", answer=refusal, references=("the document",)) == 0
    assert score("refused_rightly", answer=refusal, references=()) == 1
    assert score("refused_rightly", answer="King", references=()) == 0
    assert score("refused_rightly", answer=refusal) is None
    assert score("f1", answer=refusal, references=()) is None
    said = "The story does not say a word."
    assert score("refused_wrongly", answer=said, references=(said,)) == 0
    assert score("f1", answer=said, references=(said,)) == 1


def test_yes_no_and_choices_have_measures_of_their_own() -> None:
    assert score("yes_no", answer="Yes, he did", references=("yes",)) == 1
    assert score("yes_no", answer="He did", references=("yes",)) == 0
    assert score("yes_no") is None
    assert score("nearer", wrong=("the queen",)) == 1
    assert score("nearer", answer="queen", wrong=("the queen",)) == 0
    assert score("nearer", answer="", wrong=("the queen",)) == 0
    assert score("nearer") is None


def test_what_was_read_is_held_to_the_right_section() -> None:
    text = "x" * 300
    reads = (Read(0, 100, text[:100]), Read(250, 300, text[:50]))
    assert reaches(reads, ((20, 200),)) and not reaches(reads, ((21, 200),))
    assert reaches(reads, ((290, 300),)), "all of a short section"
    assert score("in_section", passages=reads, gold=((20, 200),)) == 1
    assert score("in_section", passages=reads, gold=((20, 200),), given="section") is None
    assert score("in_section", passages=reads) is None
    assert score("held", passages=(Read(0, 4, "a king"),)) == 1
    assert score("held", passages=()) == 0 and score("held") is None
    assert score("held", passages=(), stands=True) == 0
    assert score("held", passages=(), stands=False) is None, "said in other words"
    assert score("held", passages=(), given="section") is None


def test_citations_hold_the_evidence_or_the_answer_s_words() -> None:
    cited = Read(0, 30, "There was a king. He was old.")
    assert score("citation_holds", cited=cited, cites=True) == 1
    assert score("citation_holds", cited=cited, references=("a queen",), cites=True) == 0
    evidence = {"evidence": "He was old.", "references": ("very aged",)}
    assert score("citation_holds", cited=cited, cites=True, **evidence) == 1
    assert score("citation_holds", cites=True) is None
    assert score("cited", cites=True) == 0 and score("cited", cites=True, cited=cited) == 1
    assert score("cited") is None, "a model that cannot cite"
    assert score("citation_in_section", cited=cited, gold=((0, 20),)) == 1
    assert score("citation_in_section", cited=cited, gold=((100, 200),)) == 0


def test_names_that_neither_document_nor_question_has_are_counted() -> None:
    assert score("names_known", names=("Alice", "Grimjack"), unknown=("Grimjack",)) == 0.5
    assert score("names_known") is None


def test_summaries_are_scored_by_rouge_alone() -> None:
    values = {"kind": "summary", "answer": "The kings rode", "references": ("a king rides",)}
    assert score("rouge1", **values) == pytest.approx(1 / 3), "king, by its stem"
    assert score("f1", **values) is None and score("refused_wrongly", **values) is None


def test_the_calibration_error_is_that_of_a_loop_over_bins() -> None:
    draw = random.Random(9)
    records = [
        record(confidence=draw.choice([0.0, 0.05, 0.1, 0.33, 0.95, 1.0]), answer=answer)
        for answer in draw.choices(["king", "queen"], k=300)
    ]
    found = calibrate(records)
    assert found is not None
    want = 0.0
    for low in range(10):
        inside = [r for r in records if low == min(int((r.confidence or 0) * 10), 9)]
        if inside:
            sure = sum(r.confidence or 0 for r in inside) / len(inside)
            right = sum(r.answer == "king" for r in inside) / len(inside)
            want += abs(sure - right) * len(inside) / len(records)
    assert found.error == pytest.approx(want)
    assert sum(each.count for each in found.bins) == 300
    assert calibrate([record()]) is None and calibrate([]) is None


def test_a_runner_up_counts_where_there_is_one() -> None:
    assert score("unsure") is None and score("offered") is None
    assert score("unsure", runner_up="The queen") == score("offered", runner_up="The queen") == 1
    assert score("unsure", answer="A fox.", runner_up="The king.") == 0
    assert score("offered", answer="A fox.", runner_up="The king.") == 1
    assert score("offered", answer="A fox.", runner_up="A king of men.") == pytest.approx(0.5)
    assert score("offered", references=(), runner_up="The king.") is None  # not answerable


def test_a_record_survives_its_way_through_json() -> None:
    full = record(
        gold=((1, 2),),
        passages=(Read(0, 3, "abc"),),
        cited=Read(0, 3, "abc"),
        tags={"type": "x"},
        names=("A",),
    )
    for each in (full, record()):
        assert Record.from_dict(json.loads(json.dumps(each.to_dict()))) == each
