"""Workload ``recall``: do the chosen passages hold the section that answers the question?

Reads questions in any form of ``nazx eval`` that names the sections it asks of, FairytaleQA's
(arXiv 2203.13947) for one. Stories are strung together to books of about 50,000 tokens, so that
finding the section is not too easy.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from nazx_cli.bench.results import Row, one
from nazx_cli.bench.setup import Setup
from nazx_cli.catalog.model_ref import ModelRef
from nazx_cli.documents.document import Document
from nazx_cli.errors import DocumentError
from nazx_cli.evaluation.data.files import read_data
from nazx_cli.evaluation.data.stories import BETWEEN, Span, Story
from nazx_cli.reading.library import Library
from nazx_cli.reading.plan import fitting, select
from nazx_cli.tokenizer import Tokenizer

NAME = "recall"
BUDGET = 1_200  # tokens of passages
_BOOK = 215_000  # characters, about 50,000 tokens
_REACHED = 20  # tokens of the right section that count as having it
_DRAWS = (0, 1, 2)  # orders in which stories are strung together
_PEER_PASSAGE = 200  # tokens: what word BM25 is given

Chooser = Callable[[str], Sequence[Span]]


@dataclass(frozen=True)
class Book:
    """Stories as one text, and questions with the character spans of the sections they ask of."""

    text: str
    questions: tuple[tuple[str, tuple[Span, ...]], ...]


def run(setup: Setup) -> Iterator[Row]:
    """A row for each draw: the share of questions whose section is reached, beside word BM25."""
    stories = read_stories([Path(file) for file in setup.settings.files])
    tokenizer = Tokenizer.from_folder(ModelRef.parse(setup.settings.model).fetch())
    for draw in _DRAWS:
        ours = theirs = total = 0
        tokens = []
        for number, book in enumerate(books(stories, draw), 1):
            setup.note(f"{NAME}: draw {draw + 1} of {len(_DRAWS)}, book {number}")
            document = Document(f"book {number}", book.text, "text")
            library = Library.build([document], tokenizer)
            peer = Library.build([document], tokenizer, passage_tokens=_PEER_PASSAGE)
            tokens.append(library.num_tokens)
            total += len(book.questions)
            ours += _reached(library, book, partial(_recall, library))
            theirs += _reached(peer, book, word_bm25(peer))
        yield Row(
            NAME,
            f"questions whose section is reached, draw {draw + 1}",
            sum(tokens) // max(len(tokens), 1),
            "",
            "",
            one(ours / max(total, 1)),
            peer=f"word BM25, {_PEER_PASSAGE}-token passages",
            theirs=one(theirs / max(total, 1)),
            details={"questions": total, "budget": BUDGET},
        )


def read_stories(paths: Sequence[Path]) -> list[Story]:
    """The stories of files that have questions about sections; ``DocumentError`` where none do."""
    stories = [story for story in read_data(paths).stories if any(_asked(story))]
    if not stories:
        raise DocumentError(
            f"{', '.join(map(str, paths))}: no question names the sections that it asks of",
            "name a file of JSON lines of stories with sections, as FairytaleQA has them",
        )
    return stories


def books(stories: Sequence[Story], draw: int) -> Iterator[Book]:
    """Books of the stories in a random order; a last one under half the length is left out."""
    order = list(stories)
    random.Random(draw).shuffle(order)
    group: list[Story] = []
    length = 0
    for story in order:
        if group and length + len(story.text) > _BOOK:
            yield _book(group)
            group, length = [], 0
        group.append(story)
        length += len(story.text)
    if length > _BOOK / 2:
        yield _book(group)


def _book(stories: Sequence[Story]) -> Book:
    text = ""
    questions = []
    for story in stories:
        for question, spans in _asked(story):
            gold = tuple((len(text) + begin, len(text) + end) for begin, end in spans)
            questions.append((question, gold))
        text += story.text + BETWEEN
    return Book(text, tuple(questions))


def _asked(story: Story) -> Iterator[tuple[str, tuple[Span, ...]]]:
    """Questions about sections of ``story``, and where in it those stand."""
    for question in story.questions:
        if spans := story.spans(question.sections):
            yield question.text, spans


def _recall(library: Library, question: str) -> list[Span]:
    chosen = select(library, question, mode="recall", budget=BUDGET)
    return [(passage.start, passage.stop) for passage in chosen.passages]


def _reached(library: Library, book: Book, choose: Chooser) -> int:
    """How many questions get enough tokens of their section."""
    count = 0
    for question, gold in book.questions:
        wanted = [tuple(np.searchsorted(library.starts, span)) for span in gold]
        got = sum(
            max(0, min(stop, last) - max(start, first))
            for start, stop in choose(question)
            for first, last in wanted
        )
        count += got >= _REACHED
    return count


def word_bm25(library: Library) -> Chooser:
    """Okapi BM25 over lower-case words, k1 1.2, b 0.75: what one would otherwise use. It gives the
    best passages that fit the budget."""
    passages = library.passages
    counts = [Counter(re.findall(r"\w+", passage.text.lower())) for passage in passages]
    lengths = np.array([each.total() for each in counts])
    norms = 1.2 * (0.25 + 0.75 * lengths / lengths.mean())

    def choose(question: str) -> list[Span]:
        scores = np.zeros(len(passages))
        for word in set(re.findall(r"\w+", question.lower())):
            found = np.array([each[word] for each in counts])
            holders = np.count_nonzero(found)
            idf = math.log(1 + (len(scores) - holders + 0.5) / (holders + 0.5))
            scores += idf * found * 2.2 / (found + norms)
        best = (passages[at] for at in np.argsort(-scores, kind="stable")[:60])
        return [(passage.start, passage.stop) for passage in fitting(best, BUDGET)[0]]

    return choose
