"""Workload ``prefill``: from a prompt's ids to the logits after it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from nazx_cli.bench.engine import Engine
from nazx_cli.bench.results import Row
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.side_by_side import compare
from nazx_cli.bench.timing import clock

NAME = "prefill"


def run(setup: Setup) -> Iterator[Row]:
    """For each prompt length a row for each way to hold the weights and each rival."""
    for length in setup.prompt_lengths():
        yield from compare(setup, NAME, "prefill", length, _seconds)


def _seconds(engine: Engine, ids: Tensor) -> float:
    return clock(lambda: engine.prefill(ids))[0]
