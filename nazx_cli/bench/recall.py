"""Workload ``recall``: do the chosen passages hold the section that answers the question?

Reads questions as FairytaleQA (arXiv 2203.13947) has them, a story a line of JSON:
``{"sections": [{"id", "text"}], "qa": [{"sections": [id], "question"}]}``. Stories are strung
together to books of about 50,000 tokens, so that finding the section is not too easy.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nazx_cli.bench.results import Row, one
from nazx_cli.bench.setup import Setup
from nazx_cli.catalog.model_ref import ModelRef
from nazx_cli.documents.document import Document
from nazx_cli.errors import DocumentError
from nazx_cli.reading.library import Library
from nazx_cli.reading.plan import fitting, select
from nazx_cli.tokenizer import Tokenizer

NAME = "recall"
BUDGET = 1_200  # tokens of passages
_BOOK = 215_000  # characters, about 50,000 tokens
_REACHED = 20  # tokens of the right section that count as having it
_DRAWS = (0, 1, 2)  # orders in which stories are strung together
_PEER_PASSAGE = 200  # tokens: what word BM25 is given

Span = tuple[int, int]
Chooser = Callable[[str], Sequence[Span]]


@dataclass(frozen=True)
class Book:
    """Stories as one text, and questions with the character spans of the sections they ask of."""

    text: str
    questions: tuple[tuple[str, tuple[Span, ...]], ...]


def run(setup: Setup) -> Iterator[Row]:
    """A row for each draw: the share of questions whose section is reached, beside word BM25."""
    stories = [story for file in setup.settings.files for story in read_stories(Path(file))]
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


def read_stories(path: Path) -> list[dict[str, Any]]:
    """The stories of a file; ``DocumentError`` where it holds something else."""
    try:
        stories = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if all(story["sections"] and "qa" in story for story in stories) and stories:
            return stories
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DocumentError(
        f"{path} holds no questions as FairytaleQA has them",
        "name a JSON Lines file of stories with sections and qa",
    )


def books(stories: Sequence[dict[str, Any]], draw: int) -> Iterator[Book]:
    """Books of the stories in a random order; a last one under half the length is left out."""
    order = list(stories)
    random.Random(draw).shuffle(order)
    group: list[dict[str, Any]] = []
    length = 0
    for story in order:
        size = sum(len(section["text"]) for section in story["sections"])
        if group and length + size > _BOOK:
            yield _book(group)
            group, length = [], 0
        group.append(story)
        length += size
    if length > _BOOK / 2:
        yield _book(group)


def _book(stories: Sequence[dict[str, Any]]) -> Book:
    text = ""
    questions = []
    for story in stories:
        spans: dict[str, Span] = {}
        for section in story["sections"]:
            spans[str(section["id"])] = (len(text), len(text) + len(section["text"]))
            text += section["text"] + "\n\n"
        for asked in story["qa"]:
            gold = tuple(spans[i] for i in _numbers(asked["sections"]) if i in spans)
            if gold:
                questions.append((str(asked["question"]), gold))
    return Book(text, tuple(questions))


def _numbers(sections: Any) -> list[str]:
    """Section ids, which files hold as a list or as ``"3,4"``."""
    ids = sections if isinstance(sections, list) else str(sections).split(",")
    return [str(i).strip() for i in ids]


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
