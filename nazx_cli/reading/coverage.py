"""Passages drawn from the whole of the documents, for questions about the whole.

The documents are divided into as many equal stretches as passages fit the budget, each document
having at least one; from each stretch comes the passage whose words are most typical of it.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.reading.recall import occurrences, question_terms
from nazx_cli.reading.words import words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.reading.library import Library

_OVERVIEW = re.compile(
    r"\b(summar(y|i[sz]e|i[sz]ation|ies)|overview|outline|synops[ei]s|gist|recap|abstract|tl;?dr"
    r"|(main|key|central|major|overall|chief)\s+(\w+\s+)?"
    r"(themes?|ideas?|points?|topics?|messages?|arguments?|events?|takeaways?|findings?)"
    r"|themes|what\s+topics|what('s|’s|\s+is|\s+are)\b.{0,60}\babout\W*$"
    r"|what\s+does\s+(this|it|the\s+\w+)(\s+\w+)?\s+(say|cover|deal\s+with|contain)\W*$"
    r"|what\s+happens(\s+in\s+(this|the)\s+\w+)?\W*$)",
    re.IGNORECASE,
)
_WHOLE_WORDS = """
summarize summarise summary summarization summaries overview outline synopsis gist recap
abstract tl dr tldr main key central major overall chief theme themes idea ideas point points
topic topics message messages argument arguments event events takeaway takeaways finding
findings book books story stories text texts document documents file files novel article paper
report chapter chapters plot content contents whole entire full short brief briefly sentence
sentences paragraph paragraphs bullet words word one two three four five few ten line lines
write make provide concise detailed general cover covers contain contains deal deals
work read reading author here
"""
_ABOUT_THE_WHOLE = frozenset(_WHOLE_WORDS.split())
_EVERYWHERE = 0.25  # of the passages: a word in more of them picks none out


def is_overview(library: Library, question: str) -> bool:
    """Whether ``question`` asks about the documents as a whole.

    It does when it asks for a summary or the like and names nothing that only part of the
    documents is about, or when no word of it that has content occurs in them at all.
    """
    terms = [t for t in question_terms(question) if t.has_content]
    asked = _OVERVIEW.search(question) is not None
    if asked:
        named = {w for d in library.documents for w in words(d.name)}
        terms = [t for t in terms if t.word not in _ABOUT_THE_WHOLE and t.word not in named]
    found = [at for t in terms if len(at := occurrences(library, t))]
    if not asked:
        return not found
    total = max(1, len(library.cuts) - 1)
    holding = [len(np.unique(np.searchsorted(library.cuts, at, side="right"))) for at in found]
    return all(n > _EVERYWHERE * total for n in holding)


def typical_passages(library: Library, count: int) -> list[int]:
    """Indices of ``count`` passages spread over all documents, ascending.

    Every document is represented where ``count`` allows it; else documents are drawn evenly.
    """
    total = len(library.cuts) - 1
    if count >= total:
        return list(range(total))
    if count <= 0:
        return []
    weights = library.matcher.weights
    return [_most_typical(library, weights, *s) for s in _stretches(library, count)]


def _stretches(library: Library, count: int) -> list[tuple[int, int]]:
    """``count`` runs of passages of about the same length, none across two documents."""
    firsts = np.searchsorted(library.cuts, library.bounds)  # passage that each document begins at
    runs = [(a, b) for a, b in pairwise(firsts.tolist()) if b > a]
    if count < len(runs):
        chosen = (np.arange(count) * len(runs) + len(runs) // 2) // count
        return [runs[int(i)] for i in chosen]
    shares = _shares([b - a for a, b in runs], count)
    stretches: list[tuple[int, int]] = []
    for (a, b), share in zip(runs, shares, strict=True):
        edges = np.linspace(a, b, share + 1).round().astype(int).tolist()
        stretches.extend(pairwise(edges))
    return stretches


def _shares(sizes: list[int], count: int) -> list[int]:
    """``count`` divided as ``sizes`` are, each at least 1 and at most its size."""
    shares = [1] * len(sizes)
    for _ in range(count - len(sizes)):
        # the one whose parts are longest now; a share never outgrows its size
        i = max(range(len(sizes)), key=lambda k: sizes[k] / shares[k])
        shares[i] += 1
    return shares


def _most_typical(library: Library, weights: NDArray[np.float64], first: int, stop: int) -> int:
    """Of passages ``first`` to ``stop``, the one that shares most with the others."""
    cuts = library.cuts[first : stop + 1]
    distinct = library.posting_lists.distinct.numpy()
    tokens = np.searchsorted(distinct, library.ids[cuts[0] : cuts[-1]])
    owner = np.repeat(np.arange(stop - first), np.diff(cuts))
    # each token once for each passage
    pairs = np.unique(owner * len(distinct) + tokens)
    owner, tokens = pairs // len(distinct), pairs % len(distinct)
    shared = np.bincount(tokens, minlength=len(distinct)) - 1  # other passages that have it
    value = weights[tokens] * np.log1p(shared[tokens])
    sums = np.bincount(owner, weights=value, minlength=stop - first)
    return first + int(np.argmax(sums / np.sqrt(np.diff(cuts))))
