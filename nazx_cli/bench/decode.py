"""Workload ``decode``: seconds per token of a greedy answer to prompts of several lengths."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from nazx_cli.bench.engine import Engine
from nazx_cli.bench.results import Row
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.side_by_side import compare
from nazx_cli.bench.timing import clock

NAME = "decode"


def run(setup: Setup) -> Iterator[Row]:
    """For each prompt length a row for each way to hold the weights and each rival.

    Every run starts from a prompt that has just been taken in, so that all sides pay for
    growing their caches.
    """
    count = setup.settings.new_tokens

    def seconds(engine: Engine, ids: Tensor) -> float:
        return seconds_per_token(engine, ids, count)

    for length in setup.prompt_lengths():
        details = {"new_tokens": count}
        yield from compare(setup, NAME, "time per token", length, seconds, details)


def seconds_per_token(engine: Engine, ids: Tensor, count: int) -> float:
    """Of ``count`` tokens after a prompt of ids (T,), which is taken in first."""
    cache, logits = engine.prefill(ids)
    token = int(logits.argmax())
    return clock(lambda: engine.decode(cache, token, count))[0] / count
