"""Perplexity of plain text by position: does a model use what stands far before?

A text is cut into stretches of as many tokens, each is put through the model, and the loss of
each token counts to the range that its position lies in: powers of two, so that a range has as
many tokens as all before it. What stands before a stretch may be resident: then stretches begin
behind so many tokens, whatever is resident in their place; and names that were last said there,
not in the stretch, are counted once more, by how many tokens before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from nazx_cli.errors import UsageError
from nazx_cli.evaluation.data.stories import digest
from nazx_cli.evaluation.intervals import Estimate, estimate
from nazx_cli.evaluation.mentions import Mention, mentions
from nazx_cli.evaluation.records import AnswerFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.evaluation.approximations.base import Approximation


@dataclass(frozen=True)
class Before:
    """``tokens`` that are resident before every stretch: of the ``own`` text, of the next one that
    has as many (``other``), or ``none`` after all."""

    tokens: int
    source: str

    def resident(
        self, texts: Sequence[NDArray[np.int32]], text: int, start: int
    ) -> NDArray[np.int32]:
        """Those before ``start`` in the text of that number; ``UsageError`` where no other text has
        as many."""
        if self.source == "none":
            return texts[text][:0]
        if self.source == "own":
            return texts[text][start - self.tokens : start]
        others = (texts[(text + step) % len(texts)] for step in range(1, len(texts)))
        for ids in others:
            if len(ids) >= self.tokens:
                return ids[: self.tokens]
        raise UsageError(
            f"no other text has {self.tokens:,} tokens", "name more texts, or less --before"
        )


FIRST_RANGE = 128
"""Positions in the first range."""
FIRST_DISTANCE = 1024
"""Distances of names in the first range."""
_FURTHER = 8  # times as far a range of distances reaches as the one before it
_ROWS = 256  # positions whose losses are computed together
_SHARED = 8  # stretches whose states by full attention are kept for the next approximation
_STATES: WeakKeyDictionary[LanguageModel, dict[tuple[int, ...], Tensor]] = WeakKeyDictionary()


Part = tuple[int, int, float]
"""Where a range begins, how many tokens of a stretch are in it, and their mean loss."""


@dataclass(frozen=True)
class Stretch:
    """Losses of one stretch: of each range its first position, its tokens and their mean loss
    in nats; likewise of ``names`` by the distance to their last mention, which stands before the
    stretch; how long that took, and what an approximation tells of itself."""

    run: str
    item: str
    model: str
    text: str
    number: int
    ranges: tuple[Part, ...]
    names: tuple[Part, ...] = ()
    seconds: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)

    def parts(self, names: bool) -> tuple[Part, ...]:
        """``names`` or ``ranges``."""
        return self.names if names else self.ranges

    def total(self, names: bool) -> tuple[int, float]:
        """Tokens of ``parts``, and the sum of their losses."""
        parts = self.parts(names)
        return sum(count for _, count, _ in parts), math.fsum(n * loss for _, n, loss in parts)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Range:
    """Positions, or distances, ``start`` to ``stop`` - 1: perplexity with its interval, and
    tokens."""

    start: int
    stop: int
    perplexity: Estimate
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "start": self.start,
            "stop": self.stop,
            "tokens": self.tokens,
            **self.perplexity.to_dict(),
        }


def read_through(
    name: str,
    run: str,
    lm: LanguageModel,
    texts: Sequence[tuple[str, str]],
    answers: AnswerFile,
    *,
    length: int,
    stretches: int | None = None,
    before: Before | None = None,
    approximation: Approximation | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Stretch]:
    """Losses of each of ``texts``, in at most so many ``stretches`` of ``length`` tokens each.
    ``UsageError`` where ``before`` is more than all texts have. An ``approximation`` is in place of
    the model's own attention, or of its far memory's where there is something ``before``.

    What ``answers`` holds of ``run`` is taken from there. The last stretch of a text may be
    shorter; of one token there is nothing to foretell.
    """
    pieces = []
    tokens = [lm.tokenizer.encode_document(text) for _, text in texts]
    every = [each.ids for each in tokens]
    first = before.tokens if before else 0
    named = [
        list(mentions(text, of)) if before else []
        for (_, text), of in zip(texts, tokens, strict=True)
    ]
    for text, (title, _) in enumerate(texts):
        ids = every[text]
        starts = range(first, max(0, len(ids) - 1), length)[:stretches]
        pieces += [(text, title, start, ids[start : start + length]) for start in starts]
    if not pieces:
        raise UsageError(f"no text is longer than {first:,} tokens", "name longer ones")
    for done, (text, title, start, ids) in enumerate(pieces):
        on_progress(done, len(pieces))
        number = (start - first) // length
        resident = before.resident(every, text, start) if before else ids[:0]
        item, key = digest(title, str(number), ids.tobytes().hex())[:16], run
        if before and before.source == "other":  # which is neither of this text nor of the run
            key = digest(run, resident.tobytes().hex())[:16]
        if (line := answers.get(key, item)) is not None:
            yield Stretch(
                **{
                    **line,
                    "ranges": _parts(line["ranges"]),
                    "names": _parts(line.get("names", ())),
                }
            )
            continue
        began = time.monotonic()
        losses, beside = _losses(lm, ids.tolist(), resident.tolist(), approximation)
        took = time.monotonic() - began
        figures = {**(approximation.figures if approximation else {}), **beside}
        of_names = _by_distance(losses, named[text], start, max(0, start - first))
        found = Stretch(key, item, name, title, number, _by_range(losses), of_names, took, figures)
        answers.add([found.to_dict()])
        yield found
    on_progress(len(pieces), len(pieces))


def _losses(
    lm: LanguageModel,
    ids: Sequence[int],
    before: Sequence[int],
    approximation: Approximation | None,
) -> tuple[list[float], dict[str, float]]:
    """(T - 1,) losses in nats of the tokens after the first, with ``before`` resident; and how far
    an approximation is from full attention."""
    import torch

    from nazx_cli.evaluation.approximations.base import APART, SAME
    from nazx_cli.evaluation.approximations.far import approximated

    logits: Callable[[slice], Tensor]
    exact: Callable[[slice], Tensor] | None = None
    if approximation is None:
        logits = lm.logits(ids, before or None).__getitem__  # (T, V)
    elif before:
        exact = lm.logits(ids, before).__getitem__
        approximation.begin()
        with approximated(lm.decoder, approximation):
            logits = lm.logits(ids, before).__getitem__
    else:
        logits = _logits_of(lm, approximation.states(lm.decoder, torch.tensor(ids)))
        exact = _logits_of(lm, _exact(lm, ids))

    wanted = torch.tensor(ids[1:], device=lm.decoder.device)
    found: list[float] = []
    same, apart = 0, 0.0
    for start in range(0, len(ids) - 1, _ROWS):
        at = slice(start, min(start + _ROWS, len(ids) - 1))
        rows = logits(at).float().log_softmax(-1)
        found += torch.nn.functional.nll_loss(rows, wanted[at], reduction="none").tolist()
        if exact is not None:
            full = exact(at).float().log_softmax(-1)
            same += int((full.argmax(-1) == rows.argmax(-1)).sum())
            apart += float((full.exp() * (full - rows)).sum())
    if exact is None or not found:
        return found, {}
    return found, {SAME: same / len(found), APART: apart / len(found)}


def _exact(lm: LanguageModel, ids: Sequence[int]) -> Tensor:
    """(T, C) final states by full attention, which every approximation of a stretch is set beside:
    of a long one they take minutes, so the last few are kept as long as their model is."""
    import torch

    kept = _STATES.setdefault(lm, {})
    key = tuple(ids)
    if key not in kept:
        with torch.inference_mode():
            kept[key] = lm.attention.sequence(torch.tensor(ids).to(lm.device))
        while len(kept) > _SHARED:
            del kept[next(iter(kept))]
    return kept[key]


def _logits_of(lm: LanguageModel, states: Tensor) -> Callable[[slice], Tensor]:
    return lambda rows: lm.decoder.logits(states[rows])


def _parts(lists: Iterable[tuple[int, int, float]]) -> tuple[Part, ...]:
    """As they are read from JSON."""
    return tuple((int(start), int(count), float(loss)) for start, count, loss in lists)


def _by_distance(
    losses: Sequence[float], named: Sequence[Mention], start: int, least: int
) -> tuple[Part, ...]:
    """Of the tokens of names that were last said from token ``least`` on, but before ``start``;
    ``losses[i]`` is that of the token ``start`` + 1 + i of the text."""
    found: dict[int, list[float]] = {}
    for each in named:
        if least <= each.before < start < each.first and each.stop <= start + 1 + len(losses):
            begin, end = 0, FIRST_DISTANCE
            while each.first - each.before >= end:
                begin, end = end, _FURTHER * end
            part = losses[each.first - start - 1 : each.stop - start - 1]
            found.setdefault(begin, []).extend(part)
    return tuple((at, len(x), math.fsum(x) / len(x)) for at, x in sorted(found.items()))


def _by_range(losses: Sequence[float]) -> tuple[Part, ...]:
    """``losses[i]`` is that of the token at position i + 1."""
    found: list[Part] = []
    start, stop = 0, FIRST_RANGE
    while start <= len(losses):
        part = losses[max(0, start - 1) : stop - 1]
        if part:
            found.append((start, len(part), math.fsum(part) / len(part)))
        start, stop = stop, 2 * stop
    return tuple(found)


@dataclass(frozen=True)
class Difference:
    """Nats a token by which ``model`` is worse than ``other`` on the same stretches; below 0 it is
    better."""

    model: str
    other: str
    nats: Estimate

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"model": self.model, "against": self.other, **self.nats.to_dict()}


def differences(
    stretches: Sequence[Stretch], seed: int = 0, *, names: bool = False
) -> tuple[Difference, ...]:
    """Each model against the first one, over the stretches that both have read; intervals, and what
    is counted, as in ``summarize``."""
    by_name: dict[str, dict[str, Stretch]] = {}
    for each in stretches:
        by_name.setdefault(each.model, {})[each.item] = each
    models = list(by_name)
    found = []
    for model in models[1:]:
        pairs = [
            (each, by_name[models[0]][item])
            for item, each in by_name[model].items()
            if item in by_name[models[0]]
        ]
        several = len({mine.text for mine, _ in pairs}) > 1
        scores, clusters = [], []
        for mine, theirs in pairs:
            tokens, loss = mine.total(names)
            scores += [(loss - theirs.total(names)[1]) / max(1, tokens)] * tokens
            clusters += [mine.text if several else str(mine.number)] * tokens
        if scores:
            found.append(Difference(model, models[0], estimate(scores, clusters, seed)))
    return tuple(found)


def summarize(
    stretches: Sequence[Stretch], seed: int = 0, *, names: bool = False
) -> tuple[Range, ...]:
    """Perplexity of each range of positions over all stretches, with intervals over texts, or over
    stretches where there is one text; or of ``names``, by the distance to their last mention."""
    several = len({each.text for each in stretches}) > 1
    by_start: dict[int, list[tuple[float, int, str]]] = {}
    for each in stretches:
        cluster = each.text if several else str(each.number)
        for start, tokens, loss in each.parts(names):
            by_start.setdefault(start, []).append((loss, tokens, cluster))
    first, further = (FIRST_DISTANCE, _FURTHER) if names else (FIRST_RANGE, 2)
    found = []
    for start, parts in sorted(by_start.items()):
        scores = [loss for loss, tokens, _ in parts for _ in range(tokens)]
        clusters = [cluster for _, tokens, cluster in parts for _ in range(tokens)]
        mean = estimate(scores, clusters, seed)
        perplexity = Estimate(
            math.exp(mean.mean),
            None if mean.low is None else math.exp(mean.low),
            None if mean.high is None else math.exp(mean.high),
            len(parts),
            mean.documents,
        )
        found.append(Range(start, further * start or first, perplexity, len(scores)))
    return tuple(found)
