"""Which passages come first among several documents, and that nothing changes within one."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from reading_helpers import alice, library_of, small_tokenizer

from nazx_cli.documents.document import Document, Place
from nazx_cli.reading.best import best_passages
from nazx_cli.reading.library import Library
from nazx_cli.reading.passages import Passage
from nazx_cli.reading.plan import groups, select
from nazx_cli.reading.recall import rank
from nazx_cli.reading.words import words

DULL = "Nothing of note was ever said here about the weather or the wind. " * 8
"""A passage by itself."""


def library(*documents: Document) -> Library:
    return Library.build(documents, small_tokenizer())


def page(name: str, heading: str, body: str) -> Document:
    """A page with its title at its beginning, and a heading before the last passage, which does
    not say again what it is about."""
    text = f"{DULL}\n\n{body}"
    places = (Place(0, "A manual"), Place(len(DULL), heading))
    return Document(name, text, "html", places)


def markdown(name: str, heading: str, body: str) -> Document:
    """A page in lines, whose heading is far above its last passage."""
    code = "```\n# Lines and ships\n```"  # a comment, no heading
    above = f"# A manual\n\n```ls``` lists.\n\n## {heading}\n\n{DULL * 9}\n{code}\n{DULL * 9}"
    return Document(name, f"{above}\n\n{body}", "text")


def told(option: str) -> str:
    return f"If it is left out, every {option} that was put down before is taken once more. " * 4


def best(library: Library, question: str, most: int = 10, least: int = 3) -> list[Passage]:
    return best_passages(library, question, most, least)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (page("a.html", "The copy command", told("row")), page("b.html", "Ships", told("line"))),
        (page("copy.html", "Options", told("row")), page("ship.html", "Options", told("line"))),
        (markdown("a.md", "The copy command", told("row")), markdown("b.md", "X", told("line"))),
    ],
)
def test_what_a_passage_stands_below_tells_it_from_others(
    first: Document, second: Document
) -> None:
    """Neither passage says what it is about; the second is as good by its own words."""
    question = "What is taken if copy is left out?"
    for documents in ((first, second), (second, first)):
        found = best(library(*documents), question)
        assert found[0].document == first.name and "every row" in found[0].text


def test_of_passages_that_say_nearly_the_same_the_first_stays() -> None:
    said = "The heron keeps three silver spoons below the oldest willow of the marsh. " * 5
    again = said.replace("three", "four", 1)
    other = "A badger keeps one silver spoon, and has never seen the marsh or a willow. " * 5
    found = best(library_of(said, again, other), "Who keeps silver spoons?")
    assert sorted(passage.document for passage in found) == ["a.txt", "c.txt"]


def test_passages_of_the_same_form_that_tell_other_things_all_stay() -> None:
    people = ("Smith", "Jones", "Baker", "Cooper", "Fletcher", "Mason")
    texts = [
        f"The tenant {name} pays {at * 37} pounds of rent by the {at + 3}th day to {name} & Sons, "
        f"and {name} may keep {at + 2} cats of {at * 5} pounds each in room {at * 11}."
        for at, name in enumerate(people, 1)
    ]
    found = best(library_of(*texts), "What rent does the tenant pay?")
    assert len(found) == len(people)
    assert best(library_of(*texts), "What rent does Cooper pay?")[0].document == "d.txt"


def test_within_one_document_they_are_those_of_the_ranking() -> None:
    for question in ("Who stole the tarts?", "What did the Queen say?", "a raven", "the"):
        ranking = rank(alice(), question)
        fit = [int(i) for i in ranking.order if ranking.scores[i] > 0]
        for most in (1, 10, 64):
            assert best(alice(), question, most) == [alice().passages[i] for i in fit[:most]]


@pytest.mark.parametrize("seed", range(5))
def test_they_have_something_of_the_question_and_repeat_nothing(seed: int) -> None:
    rng = random.Random(seed)
    pool = ["king", "queen", "crown", "fox", "wolf", "judge", "trial", "walked", "old", "man"]
    texts = [
        "\n\n".join(" ".join(rng.choices(pool, k=rng.randrange(1, 70))) + "." for _ in range(20))
        for _ in range(rng.randrange(2, 5))
    ]
    texts += texts[:1]  # under another name
    kept = library_of(*texts)
    question = " ".join(rng.sample(pool, 3))
    for most in (1, 7, 40, 500):
        found = best(kept, question, most)
        assert 0 < len(found) <= most and len({passage.start for passage in found}) == len(found)
        assert all(set(question.split()) & {*words(passage.text)} for passage in found)
    looked_at = best(kept, question, 7)
    assert all(one.text != other.text for one, other in combinations(looked_at, 2))


def test_where_no_passage_has_anything_the_first_ones_are_given() -> None:
    for kept in (library_of(DULL, DULL + "Snow."), library_of(DULL * 3)):
        assert best(kept, "zzzq", 10, 2) == list(kept.passages[:2])
        assert best(kept, "", 10, 1) == list(kept.passages[:1])
    assert best(library_of(), "Who?", 10, 2) == []


def test_both_ways_of_reading_begin_with_them() -> None:
    documents = (
        page("a.html", "The copy command", told("row")),
        page("b.html", "Ships", told("line")),
    )
    kept, question = library(*documents), "What is taken if copy is left out?"
    (first, *_) = best(kept, question)
    assert groups(kept, question, together=1, apart=2, budget=600)[0] == (first,)
    chosen = select(kept, question, mode="recall", budget=len(first) + 10)
    assert chosen.passages == (first,)
