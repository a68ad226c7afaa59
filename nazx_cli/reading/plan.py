"""Choosing what of the documents goes before the model for a question.

For a question about the whole, or one of which they have no word, the documents are divided into
as many equal stretches as passages fit the budget, each document having at least one; from each
stretch comes the passage whose words are most typical of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nazx_cli.errors import UsageError
from nazx_cli.names import READ_MODES
from nazx_cli.reading.best import best_passages
from nazx_cli.reading.library import Library
from nazx_cli.reading.passages import Passage
from nazx_cli.reading.recall import occurrences, question_terms
from nazx_cli.reading.summaries.overview import has_content_of, is_overview

Cost = Callable[[Passage], int]
"""Tokens that a passage takes in a prompt, what formatting adds included."""
_LEAST_PART = 16  # tokens: less of a passage is not worth a place in the prompt
_TRIED = 64  # best passages that are tried against the room that is left


@dataclass(frozen=True)
class Selection:
    """What was chosen: the mode that ``auto`` came to, the passages in document order, and
    whether they stand for the documents as a whole."""

    mode: str
    passages: tuple[Passage, ...]
    overview: bool = False


def select(
    library: Library,
    question: str,
    *,
    mode: str,
    budget: int,
    window: int | None = None,
    cost: Cost = len,
) -> Selection:
    """Choose passages for ``question`` that cost at most ``budget`` tokens together.

    ``mode`` is one of ``mode_for``. ``window`` caps the budget. ``resident`` and ``all`` choose
    none: the model attends to the whole document, or ``map_reduce`` reads it.
    """
    if mode in ("resident", "all"):
        return Selection(mode, (), mode == "all" and is_overview(library, question))
    if window is not None:
        budget = min(budget, window)
    if mode == "tail":
        return Selection(mode, _tail(library, budget, cost))
    overview = is_overview(library, question)
    if whole := _whole(library, budget, cost):
        return Selection("recall", whole, overview)
    if mode == "auto" and (overview or not has_content_of(library, question)):
        return Selection("recall", _covering(library, budget, cost), overview)
    return Selection("recall", _ranked(library, question, budget, cost))


def mode_for(mode: str, reads_resident: bool, prefers_resident: bool | None = None) -> str:
    """What the read mode ``mode`` comes to for a model; ``reads_resident`` tells whether it can
    attend to resident documents, ``prefers_resident`` (None: the same) whether it answers best so.
    It does where this returns ``resident``.

    A mode that is unknown, or that the model cannot do, is a ``UsageError``.
    """
    if mode not in READ_MODES:
        raise UsageError(f"there is no read mode {mode!r}", f"use one of {', '.join(READ_MODES)}")
    if mode == "resident" and not reads_resident:
        raise UsageError(
            "this model was not trained to attend to a resident document", "use --read recall"
        )
    prefers = reads_resident if prefers_resident is None else prefers_resident
    return "resident" if mode == "auto" and prefers else mode


def groups(
    library: Library, question: str, *, together: int, apart: int, budget: int, cost: Cost = len
) -> list[tuple[Passage, ...]]:
    """The ``together`` best passages for ``question`` in one group, in document order, then each
    of the ``apart`` best by itself, the best first. No group costs more than ``budget``.

    Documents of no more passages than ``together`` that fit are one group, whole.
    """
    if len(library.passages) <= together and (whole := _whole(library, budget, cost)):
        return [whole]
    passages = best_passages(library, question, max(together, apart), together)
    first, _ = fitting(passages[:together], budget, cost)
    found = [tuple(library.merged(first)), *((each,) for each in passages[:apart])]
    fit = (group for group in found if group and sum(map(cost, group)) <= budget)
    return list(dict.fromkeys(fit))  # a single passage together is one apart


def _whole(library: Library, budget: int, cost: Cost) -> tuple[Passage, ...]:
    """Every passage, if all of them fit; none otherwise."""
    if library.num_tokens > budget:
        return ()
    passages = tuple(library.merged(library.passages))
    return passages if sum(map(cost, passages)) <= budget else ()


def _ranked(library: Library, question: str, budget: int, cost: Cost) -> tuple[Passage, ...]:
    """The best passages, in document order; at least part of the best one."""
    best = best_passages(library, question, _TRIED, _TRIED)
    chosen, left = fitting(best, budget, cost)
    if not chosen and best:
        part = _best_part(library, question, best[0], left, cost)
        chosen = [part] if part else []
    return tuple(library.merged(chosen))


def _covering(library: Library, budget: int, cost: Cost) -> tuple[Passage, ...]:
    """Passages from the whole of the documents, cut shorter where there are many documents."""
    sizes = [cost(passage) for passage in library.passages[:8]]
    usual = max(1, round(sum(sizes) / max(1, len(sizes))))
    count = max(budget // usual, min(len(library.documents), budget // (3 * _LEAST_PART)), 1)
    passages = [library.passages[i] for i in typical_passages(library, count)]
    if sum(map(cost, passages)) <= budget:
        return tuple(passages)
    share = budget // max(1, len(passages))
    chosen: list[Passage] = []
    spent = 0
    for passage in passages:  # what one leaves unused is the next one's
        room = share * (len(chosen) + 1) - spent
        if part := _shortened(passage, room, cost, lambda p, n: library.span(p.start, p.start + n)):
            chosen.append(part)
            spent += cost(part)
    return tuple(chosen)


def _tail(library: Library, budget: int, cost: Cost) -> tuple[Passage, ...]:
    """The end of the documents: whole passages, the first of them cut to fit."""
    chosen: list[Passage] = []
    for i in reversed(range(len(library.passages))):
        passage = library.passages[i]
        if cost(passage) > budget:
            part = _shortened(passage, budget, cost, lambda p, n: library.span(p.stop - n, p.stop))
            if part and (len(part) >= _LEAST_PART or not chosen):
                chosen.append(part)
            break
        chosen.append(passage)
        budget -= cost(passage)
    return tuple(library.merged(chosen))


def fitting(
    passages: Iterable[Passage], budget: int, cost: Cost = len
) -> tuple[list[Passage], int]:
    """Those that fit beside the ones before them, and what is left of the budget."""
    chosen: list[Passage] = []
    for passage in passages:
        if (price := cost(passage)) <= budget:
            chosen.append(passage)
            budget -= price
    return chosen, budget


def _best_part(
    library: Library, question: str, passage: Passage, budget: int, cost: Cost
) -> Passage | None:
    """The stretch of ``passage`` that fits and holds most of what the question names."""
    found: list[tuple[int, float]] = []
    for term in question_terms(question):
        at = occurrences(library, term)
        inside = at[(at >= passage.start) & (at < passage.stop)]
        found.extend((int(p), term.weight / len(at)) for p in inside)

    def around(passage: Passage, size: int) -> Passage:
        begins = [passage.start, *(p - size // 4 for p, _ in found)]
        begins = [min(max(b, passage.start), passage.stop - size) for b in begins]
        best = max(begins, key=lambda b: sum(w for p, w in found if b <= p < b + size))
        return library.span(best, best + size)

    return _shortened(passage, budget, cost, around)


def _shortened(
    passage: Passage, budget: int, cost: Cost, part: Callable[[Passage, int], Passage]
) -> Passage | None:
    """The longest ``part(passage, tokens)`` that costs at most ``budget``, if there is one.

    ``cost`` is taken to be about a constant more than the tokens: a few trials settle it.
    """
    size = min(len(passage), budget)
    while size > 0:
        shorter = part(passage, size)
        excess = cost(shorter) - budget
        if excess <= 0:
            return shorter
        size -= max(1, excess)
    return None


def typical_passages(library: Library, count: int) -> list[int]:
    """Indices of ``count`` passages spread over all documents, ascending.

    Every document is represented where ``count`` allows it; else documents are drawn evenly.
    """
    total = len(library.cuts) - 1
    if count >= total:
        return list(range(total))
    if count <= 0:
        return []
    return [_most_typical(library, *stretch) for stretch in _stretches(library, count)]


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


def _most_typical(library: Library, first: int, stop: int) -> int:
    """Of passages ``first`` to ``stop``, the one that shares most with the others."""
    cuts = library.cuts[first : stop + 1]
    tokens = library.token_ids(int(cuts[0]), int(cuts[-1]))
    owner = np.repeat(np.arange(stop - first), np.diff(cuts))
    # each token once for each passage
    size = library.tokenizer.vocab_size
    pairs = np.unique(owner * size + tokens)
    owner, tokens = pairs // size, pairs % size
    shared = np.bincount(tokens, minlength=size) - 1  # other passages that have it
    value = library.token_weights[tokens] * np.log1p(shared[tokens])
    sums = np.bincount(owner, weights=value, minlength=stop - first)
    return first + int(np.argmax(sums / np.sqrt(np.diff(cuts))))
