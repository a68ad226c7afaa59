"""Workload ``first-token``: InAttention from the ids of a long context to its first new token.

The model has random weights. transformers runs ordinary attention at the same shapes; its
prefill is measured at two lengths and extrapolated from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

import torch
from torch import Tensor

from nazx_cli.bench import peers
from nazx_cli.bench.decode import greedy
from nazx_cli.bench.prefill import prefilled
from nazx_cli.bench.results import Row, Spread
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.shapes import inattention_config, random_decoder, random_model, zipf_ids
from nazx_cli.bench.timing import Side, alternate, clock, quadratic_through
from nazx_cli.config import ModelConfig
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.weights.load import resolve_dtype

NAME = "first-token"
CONTEXTS = (10_000, 100_000)
LAYOUTS = ("postings",)
_FURTHER = 5  # tokens after the first


def run(setup: Setup) -> Iterator[Row]:
    """In the chosen type and in float32, for each layout and length: the first token, beside
    the peer's extrapolated prefill, and the time per further token."""
    config = inattention_config(setup.settings.shapes)
    chosen = resolve_dtype(setup.settings.dtype, torch.device("cpu"))
    for dtype in dict.fromkeys((chosen, torch.float32)):
        yield from _in_dtype(setup, config, dtype)


class _Case:
    """One layout and length; ``further`` gathers seconds per further token, run by run."""

    def __init__(self, lm: LanguageModel, ids: Tensor) -> None:
        self.lm = lm
        self.ids = ids
        self.distinct = len(torch.unique(ids))
        self.further: list[float] = []

    def first_token(self) -> float:
        """Seconds from the ids to the first new token."""
        seconds, (context, logits) = clock(lambda: prefilled(self.lm, self.ids))
        token = int(logits.argmax())
        more = clock(lambda: greedy(self.lm, context, token, _FURTHER))[0]
        self.further.append(more / _FURTHER)
        return seconds


def _in_dtype(setup: Setup, config: ModelConfig, dtype: torch.dtype) -> Iterator[Row]:
    settings = setup.settings
    label = f"{NAME}, {str(dtype).removeprefix('torch.')}"
    setup.note(f"{label}: making a random model of {settings.shapes} shapes")
    decoder = random_decoder(config, dtype)
    cases = [
        _Case(random_model(settings.shapes, decoder, layout), zipf_ids(config.vocab_size, count))
        for layout in settings.layouts or LAYOUTS
        for count in settings.contexts or CONTEXTS
    ]
    sides: list[Side] = [case.first_token for case in cases]
    peer = peers.TransformersPeer.random(config, dtype) if peers.is_installed() else None
    if peer:
        ids = zipf_ids(config.vocab_size, max(settings.peer_lengths)).long()
        sides += [_theirs(peer, ids[:count]) for count in settings.peer_lengths]
        peer.prefill(ids[:64])
    for case in cases:
        case.first_token()  # a round that does not count, without the peer's minutes
        case.further.clear()
    runs = alternate(sides, settings.repeat, warm_up=False, on_round=setup.rounds(label))
    for case, first in zip(cases, runs, strict=False):
        yield _first_row(setup, case, first, peer, runs[len(cases) :])
        yield _further_row(case)


def _theirs(peer: peers.TransformersPeer, ids: Tensor) -> Side:
    return lambda: clock(lambda: peer.prefill(ids))[0]


def _first_row(
    setup: Setup,
    case: _Case,
    ours: tuple[float, ...],
    peer: peers.TransformersPeer | None,
    measured: Sequence[tuple[float, ...]],
) -> Row:
    """The row of the first token; ``measured`` are the peer's runs at its two lengths."""
    count, lengths = len(case.ids), setup.settings.peer_lengths
    details: dict[str, float | int] = {"distinct_tokens": case.distinct}
    theirs, note = None, peers.MISSING
    if peer:
        rounds = zip(*measured, strict=True)
        theirs = Spread(tuple(extrapolated(lengths, pair, count) for pair in rounds))
        note = "extrapolated from {:,} and {:,} tokens".format(*lengths)
        for length, runs in zip(lengths, measured, strict=True):
            details[f"peer_at_{length}_seconds"] = median(runs)
    return Row(
        workload=NAME,
        measure="first token",
        tokens=count,
        unit="s",
        dtype=case.lm.dtype,
        ours=Spread(ours),
        layout=case.lm.layout,
        peer=f"{peer.name} prefill" if peer else peers.TRANSFORMERS,
        theirs=theirs,
        note=note,
        details=details,
    )


def _further_row(case: _Case) -> Row:
    return Row(
        workload=NAME,
        measure="further token",
        tokens=len(case.ids),
        unit="s",
        dtype=case.lm.dtype,
        ours=Spread(tuple(case.further)),
        layout=case.lm.layout,
    )


def extrapolated(lengths: tuple[int, int], seconds: Sequence[float], count: int) -> float:
    """Seconds of a prefill of ``count`` tokens, from those measured at two ``lengths``."""
    first, second = zip(lengths, seconds, strict=True)
    return quadratic_through(first, second)(count)
