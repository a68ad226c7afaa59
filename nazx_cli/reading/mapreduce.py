"""Reading documents block by block and bringing together what was found.

``map_reduce`` yields what each block answers; ``condense`` brings the partial answers down to
what fits one prompt; the caller then asks for the final answer, and can stream it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nazx_cli.errors import ContextOverflowError
from nazx_cli.names import OnProgress
from nazx_cli.reading.library import Library
from nazx_cli.reading.passages import Passage
from nazx_cli.reading.words import words

NOTHING_FOUND = "Nothing found."
"""What a model is told to say of a block that does not bear on the question."""

_NOTHING = re.compile(
    r"\W*(nothing(\s+(was|is|relevant))?(\s+found)?|none|n/?a|not\s+(found|mentioned|stated|given)"
    r"|(there\s+is\s+)?no\s+(relevant\s+)?(information|mention|answer)\b.{0,60}"
    r"|(the|this|these)\s+(text|passages?|excerpts?|blocks?)\s+(does|do)\s+not\b.{0,80})\W*",
    re.IGNORECASE | re.DOTALL,
)

Ask = Callable[[str, tuple[Passage, ...]], str]
"""Called with the question and a block; returns the partial answer's text."""
Merge = Callable[[str, tuple["Partial", ...]], str]
"""Called with the question and partial answers; returns one that stands for all of them."""


@dataclass(frozen=True)
class Partial:
    """What a block, or several, answered: block ``index`` (from 1) ``of`` all of them, its
    passages and the answer's text. A merged one has the index of its first block."""

    index: int
    of: int
    passages: tuple[Passage, ...]
    text: str

    @property
    def found(self) -> bool:
        """False where the text only says that nothing was found."""
        return bool(self.text.strip()) and _NOTHING.fullmatch(self.text.strip()) is None


def blocks(
    library: Library, budget: int, cost: Callable[[Passage], int] = len
) -> list[tuple[Passage, ...]]:
    """The whole of the documents in order, in as few blocks as fit ``budget`` tokens each.

    A block is one stretch of one document, cut where passages are. ContextOverflowError where
    a passage does not fit.
    """
    cuts, found = library.cuts, list[tuple[Passage, ...]]()
    at, last = 0, len(cuts) - 1
    while at < last:
        start = int(cuts[at])
        end = int(library.bounds[library.document_of(start) + 1])
        most = int(np.searchsorted(cuts, end)) - at  # passages to the document's end
        # By their tokens, which they take at least: then a look or two settles it.
        count = int(np.searchsorted(cuts, start + budget, side="right")) - 1 - at
        count = min(max(count, 1), most)
        beyond = most + 1
        while (price := cost(block := library.span(start, int(cuts[at + count])))) > budget:
            if count == 1:
                raise _too_long(price, budget)
            beyond = count
            count = max(1, min(count - 1, count * budget // price))
        while count + 1 < beyond:
            longer = library.span(start, int(cuts[at + count + 1]))
            if cost(longer) > budget:
                break
            block, count = longer, count + 1
        found.append((block,))
        at += count
    return found


def _too_long(price: int, budget: int) -> ContextOverflowError:
    return ContextOverflowError(
        f"a block of {price:,} tokens does not fit the {max(0, budget):,} that are free",
        "use a larger --ctx, a smaller --max-tokens (in a chat: /set parameter ctx, "
        "/set parameter max_tokens) or a shorter question",
    )


def map_reduce(
    question: str,
    parts: Sequence[tuple[Passage, ...]],
    ask: Ask,
    on_progress: OnProgress | None = None,
) -> Iterator[Partial]:
    """Ask ``question`` of every one of the ``blocks`` in turn and yield each answer.

    ``on_progress`` is called with blocks done and in all, at first with none done. Whatever
    ``ask`` raises, KeyboardInterrupt included, passes through; what was yielded stands.
    """
    if on_progress:
        on_progress(0, len(parts))
    for index, passages in enumerate(parts, 1):
        partial = Partial(index, len(parts), passages, ask(question, passages).strip())
        if on_progress:
            on_progress(index, len(parts))
        yield partial


def condense(
    question: str,
    partials: Sequence[Partial],
    *,
    budget: int,
    count: Callable[[str], int],
    merge: Merge,
) -> tuple[Partial, ...]:
    """Partial answers that fit ``budget`` tokens together, in document order.

    Those that found nothing are dropped, and those that say the same become one: notes that repeat
    themselves have the answer do so. Where the rest is too much, neighbouring ones are
    merged, level by level; one that is too long by itself is cut at a word. ``count`` gives the
    tokens that a text takes in the prompt. Empty where nothing was found at all.
    """
    kept = _distinct(partials)
    while len(kept) > 1 and sum(count(p.text) for p in kept) > budget:
        merged: list[Partial] = []
        for group in _groups(kept, budget, count):
            if len(group) == 1:
                merged.append(group[0])
                continue
            passages = tuple(passage for p in group for passage in p.passages)
            text = merge(question, group).strip()
            merged.append(Partial(group[0].index, group[0].of, passages, text))
        kept = _distinct(merged)
    return tuple(_cut_to(p, budget, count) for p in kept)


def _distinct(partials: Sequence[Partial]) -> tuple[Partial, ...]:
    """Those that found something, and of those that say the same the first, with all passages."""
    found: dict[tuple[str, ...], Partial] = {}
    for partial in filter(lambda each: each.found, partials):
        key = tuple(words(partial.text)) or (partial.text,)
        first = found.get(key)
        passages = (*first.passages, *partial.passages) if first else partial.passages
        found[key] = replace(first or partial, passages=passages)
    return tuple(found.values())


def _groups(
    partials: Sequence[Partial], budget: int, count: Callable[[str], int]
) -> list[tuple[Partial, ...]]:
    """Runs of partial answers that fit ``budget``, each of two or more but perhaps the last:
    with fewer at every level, condensing comes to an end."""
    groups: list[list[Partial]] = []
    left = 0
    for partial in partials:
        partial = _cut_to(partial, budget // 2, count)
        price = count(partial.text)
        if not groups or (price > left and len(groups[-1]) > 1):
            groups.append([])
            left = budget
        groups[-1].append(partial)
        left -= price
    return [tuple(group) for group in groups]


def _cut_to(partial: Partial, budget: int, count: Callable[[str], int]) -> Partial:
    """``partial`` with as many of its first words as fit ``budget``."""
    if count(partial.text) <= budget:
        return partial
    ends = [match.end() for match in re.finditer(r"\S+", partial.text)]
    fits = bisect_right(ends, budget, key=lambda end: count(partial.text[:end]))
    return replace(partial, text=partial.text[: ends[fits - 1]] if fits else "")
