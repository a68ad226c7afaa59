"""The best passages for a question: as recall ranks them and, among several documents, looked at
once more.

A page of a manual does not say again in each passage what it is about: its name and headings do.
So the best of a ranking are put in a new order by how much of the question a passage has, by
rarity, and how much more with its document's name and title and the headings that it stands
below. And pages repeat each other, in other formats or versions: of passages that say nearly the
same only the first stays.

Weights were chosen on 724 questions about the manuals of Python, PostgreSQL and SQLite, each asked
of all its 783 to 1,171 pages: the sentence that answers stands in one of the three best passages
for 79 % of them, in one of the ten best for 91 %, where the ranking alone has 76 and 89 %. On 140
questions about other pages, and of two other manuals, it is 74 and 90 % where that has 69 and
85 %. Larger weights are as good there and on tales without headings, a file each, but lose on
novels, which these leave as they were (71 and 71 % in three, 81 and 82 in ten). Weights fitted to
eleven more features gave no more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import PurePath

from nazx_cli.reading.library import Library
from nazx_cli.reading.passages import Passage
from nazx_cli.reading.recall import holding, question_terms, rank, rarity
from nazx_cli.reading.words import stem, words

_MARKDOWN = frozenset((".md", ".markdown", ".mdx"))
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+)$", re.MULTILINE)
_CODE = re.compile(r"^ {0,3}(`{3,}|~{3,})[^`\n]*\n.*?(?:^ {0,3}\1|\Z)", re.MULTILINE | re.DOTALL)
_LOOKED_AT = 32  # of a ranking
_OWN, _ADDED = 0.2, 0.5  # beside the score, as a share of the best one's
_RUN = 3  # words
_REPEATED = 0.8  # of the runs of the shorter of two passages: they say the same


def best_passages(library: Library, question: str, most: int, least: int) -> list[Passage]:
    """At most ``most`` passages that have something of ``question``, the best first; where none
    has, ``least``."""
    several = len(library.documents) > 1
    ranking = rank(library, question, max(most, _LOOKED_AT if several else 0))
    order = [int(i) for i in ranking.order]
    fit = [i for i in order if ranking.scores[i] > 0]
    if not several or not fit:
        return [library.passages[i] for i in (fit[:most] or order[:least])]
    first, rest = fit[:_LOOKED_AT], fit[_LOOKED_AT:]
    scores = [float(ranking.scores[i]) for i in first]
    found = _looked_at(library, question, [library.passages[i] for i in first], scores)
    return [*islice(chain(found, (library.passages[i] for i in rest)), most)]


def _looked_at(
    library: Library, question: str, passages: Sequence[Passage], scores: Sequence[float]
) -> list[Passage]:
    """``passages`` of these ``scores``, all above 0 and the first the best, in their new order."""
    count = len(library.passages)
    terms = [term for term in question_terms(question) if term.has_content]
    weighed = [(term.stems, rarity(count, holding(library, term))) for term in terms]
    total = sum(weight for _, weight in weighed) or 1.0

    def share(stems: frozenset[str]) -> float:
        return sum(weight for each, weight in weighed if each & stems) / total

    values: list[float] = []
    for passage, score in zip(passages, scores, strict=True):
        text = _stems(passage.text)
        own = share(text)
        added = share(text | _stems(_about(library, passage))) - own
        values.append(score / scores[0] + _OWN * own + _ADDED * added)
    order = sorted(range(len(passages)), key=lambda at: -values[at])
    return _distinct([passages[at] for at in order])


def _about(library: Library, passage: Passage) -> str:
    """The name and title of its document, and where in it the passage begins and ends; of Markdown
    the first heading and the one above the passage."""
    number = library.document_of(passage.start)
    tokenized = library.documents[number]
    document, name = tokenized.document, PurePath(passage.document)
    if name.suffix.lower() in _MARKDOWN:
        low = int(library.bounds[number])
        begin, _ = tokenized.characters(passage.start - low, passage.stop - low)
        headings = _HEADING.findall(_CODE.sub("", tokenized.between(0, begin)))
        return " ".join([name.stem, *headings[:1], *headings[-1:]])
    places = (document.place_at(0), passage.first_place, passage.last_place)
    return " ".join([name.stem, *filter(None, places)])


def _distinct(passages: Sequence[Passage]) -> list[Passage]:
    """``passages`` without those that repeat one before them."""
    kept: list[tuple[Passage, frozenset[tuple[str, ...]]]] = []
    for passage in passages:
        said = [*words(passage.text)]
        runs = frozenset(zip(*(said[at:] for at in range(_RUN)), strict=False))
        if not any(_repeats(runs, other) for _, other in kept):
            kept.append((passage, runs))
    return [passage for passage, _ in kept]


def _repeats(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> bool:
    shorter = min(len(one), len(other))
    return shorter > 0 and len(one & other) >= _REPEATED * shorter


def _stems(text: str) -> frozenset[str]:
    return frozenset(stem(word) for word in words(text))
