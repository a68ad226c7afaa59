"""Perplexity of plain text by position: does a model use what stands far before?

A text is cut into stretches of as many tokens, each is put through the model, and the loss of
each token counts to the range that its position lies in: powers of two, so that a range has as
many tokens as all before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nazx_cli.evaluation.data.stories import digest
from nazx_cli.evaluation.intervals import Estimate, estimate
from nazx_cli.evaluation.records import AnswerFile

if TYPE_CHECKING:
    from torch import Tensor

    from nazx_cli.engine.language_model import LanguageModel

FIRST_RANGE = 128
"""Positions in the first range."""
_ROWS = 256  # positions whose losses are computed together


@dataclass(frozen=True)
class Stretch:
    """Losses of one stretch: of each range its first position, its tokens and their mean loss
    in nats."""

    run: str
    item: str
    model: str
    text: str
    number: int
    ranges: tuple[tuple[int, int, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Range:
    """Positions ``start`` to ``stop`` - 1: perplexity with its interval, and tokens."""

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
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Stretch]:
    """Losses of each of ``texts``, in at most so many ``stretches`` of ``length`` tokens each.

    What ``answers`` holds of ``run`` is taken from there. The last stretch of a text may be
    shorter; of one token there is nothing to foretell.
    """
    pieces = []
    for title, text in texts:
        ids = lm.tokenizer.encode_document(text).ids
        starts = range(0, max(0, len(ids) - 1), length)[:stretches]
        pieces += [(title, at, ids[start : start + length]) for at, start in enumerate(starts)]
    for done, (title, number, ids) in enumerate(pieces):
        on_progress(done, len(pieces))
        item = digest(title, str(number), ids.tobytes().hex())[:16]
        if (line := answers.get(run, item)) is not None:
            yield Stretch(
                **{
                    **line,
                    "ranges": tuple((int(a), int(n), float(x)) for a, n, x in line["ranges"]),
                }
            )
            continue
        found = Stretch(run, item, name, title, number, _by_range(_losses(lm, ids.tolist())))
        answers.add([found.to_dict()])
        yield found
    on_progress(len(pieces), len(pieces))


def _losses(lm: LanguageModel, ids: Sequence[int]) -> list[float]:
    """(T - 1,) losses in nats of the tokens after the first."""
    import torch

    logits: Tensor = lm.logits(ids)  # (T, V)
    wanted = torch.tensor(ids[1:], device=logits.device)
    found: list[float] = []
    for start in range(0, len(ids) - 1, _ROWS):
        rows = logits[start : start + _ROWS][: len(ids) - 1 - start]
        right = wanted[start : start + len(rows)]
        found += torch.nn.functional.cross_entropy(rows.float(), right, reduction="none").tolist()
    return found


def _by_range(losses: Sequence[float]) -> tuple[tuple[int, int, float], ...]:
    """``losses[i]`` is that of the token at position i + 1."""
    found = []
    start, stop = 0, FIRST_RANGE
    while start <= len(losses):
        part = losses[max(0, start - 1) : stop - 1]
        if part:
            found.append((start, len(part), math.fsum(part) / len(part)))
        start, stop = stop, 2 * stop
    return tuple(found)


def summarize(stretches: Sequence[Stretch], seed: int = 0) -> tuple[Range, ...]:
    """Perplexity of each range over all stretches, with intervals over texts, or over stretches
    where there is one text."""
    several = len({each.text for each in stretches}) > 1
    by_start: dict[int, list[tuple[float, int, str]]] = {}
    for each in stretches:
        cluster = each.text if several else str(each.number)
        for start, tokens, loss in each.ranges:
            by_start.setdefault(start, []).append((loss, tokens, cluster))
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
        found.append(Range(start, 2 * start or FIRST_RANGE, perplexity, len(scores)))
    return tuple(found)
