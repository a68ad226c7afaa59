"""Workload ``growth``: first token, further tokens and memory as the context grows, ours and the
rivals', for plots (``plots``).

All have random weights. Rivals are measured as far as they can take in a prompt in minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from nazx_cli.bench.engine import Engine, Ours, Rival, kernel_of
from nazx_cli.bench.random_rivals import random_rivals
from nazx_cli.bench.results import Row, Spread, one
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.shapes import inattention_config, random_decoder, random_model, zipf_ids
from nazx_cli.bench.timing import Side, alternate, clock
from nazx_cli.checkpoint.load import resolve_dtype

NAME = "growth"
CONTEXTS = (1000, 2000, 4000, 8000, 16_000, 32_000, 100_000, 320_000, 1_000_000)
LAYOUT = "pairs"
FIRST, FURTHER, MEMORY = "time to first token", "time per token", "memory of the context"
_FURTHER = 5  # tokens after the first


@dataclass
class _Runner:
    """An engine at one length; its figures run by run."""

    engine: Engine
    ids: torch.Tensor

    def __post_init__(self) -> None:
        self.further: list[float] = []
        self.memory = 0

    def first_token(self) -> float:
        """Seconds from the ids to the first new token."""
        seconds, (cache, logits) = clock(lambda: self.engine.prefill(self.ids))
        token = int(logits.argmax())
        more = clock(lambda: self.engine.decode(cache, token, _FURTHER))[0]
        self.further.append(more / _FURTHER)
        self.memory = self.engine.cache_bytes(cache)
        return seconds


def run(setup: Setup) -> Iterator[Row]:
    """For each length three rows for each rival; ours alone past the rivals' longest."""
    settings = setup.settings
    dtype = resolve_dtype(settings.dtype, torch.device("cpu"))
    config = inattention_config(settings.shapes)
    setup.note(f"{NAME}: making random models of {settings.shapes} shapes")
    layout = next(iter(settings.layouts), LAYOUT)
    lm = random_model(settings.shapes, random_decoder(config, dtype), layout)
    longest = max(settings.peer_lengths)
    with random_rivals(setup, config, dtype, longest) as rivals:
        for rival in rivals:
            if rival.engine is None:
                setup.note(f"{NAME}: {rival.note}")
        for count in sorted({*settings.peer_lengths, *(settings.contexts or CONTEXTS)}):
            ids = zipf_ids(config.vocab_size, count)
            ours = _Runner(Ours(lm), ids)
            near = [rival for rival in rivals if rival.engine and count <= longest]
            theirs = [_Runner(rival.engine, ids) for rival in near if rival.engine]
            sides: list[Side] = [each.first_token for each in (ours, *theirs)]
            ours.first_token()
            ours.further.clear()
            label = f"{NAME}, {count:,} tokens"
            runs = alternate(sides, settings.repeat, warm_up=False, on_round=setup.rounds(label))
            alone = _rows(ours, runs[0], layout, kernel_of(lm), lm.dtype)
            if not near:
                yield from alone
            for rival, their, firsts in zip(near, theirs, runs[1:], strict=True):
                beside = _rows(their, firsts, "", "", lm.dtype)
                yield from map(_beside, alone, beside, [rival] * len(alone))


def _rows(
    runner: _Runner, firsts: tuple[float, ...], layout: str, kernel: str, dtype: str
) -> tuple[Row, Row, Row]:
    row = Row(NAME, FIRST, len(runner.ids), "s", dtype, Spread(firsts), layout, kernel)
    return (
        row,
        replace(row, measure=FURTHER, ours=Spread(tuple(runner.further))),
        replace(row, measure=MEMORY, unit="bytes", ours=one(runner.memory)),
    )


def _beside(ours: Row, theirs: Row, rival: Rival) -> Row:
    note = "" if rival.precision == ours.dtype else f"theirs is {rival.precision}"
    parts = [part for part in (note, rival.note) if part]
    return replace(ours, peer=rival.name, theirs=theirs.ours, note="; ".join(parts))
