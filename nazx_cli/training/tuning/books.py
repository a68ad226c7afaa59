"""Books made of stories, and what a stretch of one holds of a question's answer.

Passages are the product's own: a library cuts the book, ``rank`` orders its passages.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from nazx_cli.documents.document import Document
from nazx_cli.evaluation.data.stories import SUMMARY, Question, Span, Story
from nazx_cli.reading.library import Library
from nazx_cli.reading.recall import rank
from nazx_cli.reading.words import STOP_WORDS, words

if TYPE_CHECKING:
    from nazx_cli.reading.passages import Passage
    from nazx_cli.tokenizer import Tokenizer

BETWEEN = "\n\n\n"
"""What stands between the stories of a book."""
_SIZES = (1, 1, 2, 6, 12, 25)  # stories of a book
_NAMES = ("stories.txt", "book.txt", "document.pdf", "notes.md", "text.txt", "page.html")
_RANKED = 16  # passages of a ranking that are looked at
_TOUCHES = 40  # characters of the evidence: less of it in a passage is nothing of it


def split_held(stories: Sequence[Story], share: int) -> tuple[list[Story], list[Story]]:
    """Stories to train on and every ``share``-th or so that is held out, by what they say: the
    same story falls on the same side in every run."""
    train: list[Story] = []
    held: list[Story] = []
    for story in stories:
        (held if share and int(story.key, 16) % share == 0 else train).append(story)
    return train, held


def drawn(
    stories: Sequence[Story], wanted: Callable[[Question], object]
) -> list[tuple[Story, Question]]:
    """The questions of ``stories`` that are ``wanted`` and no summary, each with its story, in an
    order of chance that is the same in every run."""
    found = [
        (story, question)
        for story in stories
        for question in story.questions
        if question.kind != SUMMARY and wanted(question)
    ]
    random.Random(0).shuffle(found)
    return found


def books(stories: Sequence[Story], tokenizer: Tokenizer, rng: random.Random) -> Iterator[Book]:
    """All of ``stories``, each in one book, in books of a few sizes."""
    order = list(stories)
    rng.shuffle(order)
    at = 0
    while at < len(order):
        size = rng.choice(_SIZES)
        yield Book(order[at : at + size], tokenizer, rng)
        at += size


@dataclass(frozen=True)
class Asked:
    """A question about a book: where in the book's text the evidence for its answer stands."""

    question: Question
    story: int
    evidence: tuple[Span, ...]


class Book:
    """Stories one after another, as one document."""

    def __init__(self, stories: Sequence[Story], tokenizer: Tokenizer, rng: random.Random) -> None:
        self.stories = tuple(stories)
        self.text = BETWEEN.join(story.text for story in stories)
        name = rng.choice(_NAMES)
        if len(stories) == 1 and rng.random() < 0.7:
            name = f"{re.sub(r'[^A-Za-z0-9-]+', '-', stories[0].title)[:40].strip('-')}.txt"
        self.library = Library.build([Document(name, self.text, "text")], tokenizer)
        self._ranked: dict[str, list[int]] = {}

    @cached_property
    def asked(self) -> list[Asked]:
        """Every question of every story."""
        found: list[Asked] = []
        at = 0
        for number, story in enumerate(self.stories):
            for question in story.questions:
                spans = _evidence(story, question)
                moved = tuple((first + at, last + at) for first, last in spans)
                found.append(Asked(question, number, moved))
            at += len(story.text) + len(BETWEEN)
        return found

    @cached_property
    def places(self) -> list[Span]:
        """The characters of each passage of the library."""
        return [self.characters(passage) for passage in self.library.passages]

    def characters(self, passage: Passage) -> Span:
        """The characters of the book that ``passage`` holds."""
        starts = self.library.starts
        end = int(starts[passage.stop]) if passage.stop < len(starts) else len(self.text)
        return (int(starts[passage.start]) if passage.start else 0, end)

    def holding(self, spans: Sequence[Span]) -> list[int]:
        """Numbers of the passages that hold something of ``spans``, in order."""
        least = min(_TOUCHES, sum(last - first for first, last in spans) / 2)
        return [i for i, place in enumerate(self.places) if overlap(place, spans) > least]

    def ranked(self, question: str, count: int) -> list[int]:
        """The ``count`` best passages for a question, best first; at most ``_RANKED``."""
        if question not in self._ranked:
            order = rank(self.library, question).order[:_RANKED]
            self._ranked[question] = [int(i) for i in order]
        return self._ranked[question][:count]

    def passages(self, numbers: Sequence[int], merged: bool) -> tuple[Passage, ...]:
        """Passages in document order; ``merged`` joins those that follow on each other."""
        chosen = [self.library.passages[i] for i in sorted(set(numbers))]
        return tuple(self.library.merged(chosen)) if merged else tuple(chosen)


@dataclass(frozen=True)
class Found:
    """What some passages hold of a question's answer: ``held`` where they answer it, ``absent``
    where they surely do not (neither: unclear), and the number (from 1) of the best passage."""

    held: bool
    absent: bool
    number: int | None


def found(book: Book, asked: Asked, answer: str, passages: Sequence[Passage]) -> Found:
    """Judge ``passages`` by how much of the evidence and of the answer's words they hold."""
    shares = [overlap(book.characters(p), asked.evidence) for p in passages]
    needed = sum(last - first for first, last in asked.evidence)
    have = sum(shares)
    golden = " ".join(p.text for p, share in zip(passages, shares, strict=True) if share > 30)
    support = word_share(answer, golden) if golden else 0.0
    held = (
        have > 0.85 * needed
        or (have > 60 and support >= 0.75)
        or (have > 0.5 * needed and support > 0.5)
    )
    absent = have < _TOUCHES and word_share(answer, " ".join(p.text for p in passages)) < 0.6
    number: int | None = None
    if held and have > 0:
        best = max(
            range(len(passages)),
            key=lambda i: (
                shares[i] > 30,
                2 * word_share(answer, passages[i].text)
                + word_share(asked.question.text, passages[i].text)
                + (shares[i] / max(1, needed) if asked.question.evidence else 0.0),
            ),
        )
        number = best + 1
    return Found(held and bool(asked.evidence), absent, number)


def overlap(place: Span, spans: Sequence[Span]) -> int:
    """Characters that ``place`` shares with ``spans``."""
    first, last = place
    return sum(max(0, min(last, b) - max(first, a)) for a, b in spans)


def word_share(part: str, whole: str) -> float:
    """The share of the words of content of ``part`` that ``whole`` has; 1 where it has none."""
    wanted = set(words(part)) - STOP_WORDS
    return len(wanted & set(words(whole))) / len(wanted) if wanted else 1.0


def _evidence(story: Story, question: Question) -> tuple[Span, ...]:
    """The sentence that the data names if the text has it, else the sections; the whole story for
    a question that it does not answer and that names no section."""
    if question.evidence and (at := story.text.find(question.evidence)) >= 0:
        return ((at, at + len(question.evidence)),)
    if not question.answers and not question.sections:
        return ((0, len(story.text)),)
    return story.spans(question.sections)
