"""Workload ``training``: what a step of ``nazx train`` takes as its sequences grow.

New models of the size that ``nazx train`` makes learn from one sequence of chance, forward and
backward, without the optimizer's step, in the number format that it takes here. Each length has a
process of its own: run as ``python -m nazx_cli.bench.processes.training ATTENTION TOKENS THREADS``
this file is such a process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from nazx_cli.bench.growth import exponent
from nazx_cli.bench.models import zipf_ids
from nazx_cli.bench.processes.memory import measured
from nazx_cli.bench.results import Row, clock, one
from nazx_cli.bench.setup import Setup
from nazx_cli.checkpoint.load import resolve_dtype
from nazx_cli.config import ModelConfig
from nazx_cli.memory import probe
from nazx_cli.training.scratch.corpus import Rows
from nazx_cli.training.scratch.initial import Shape, new_decoder, parse_attention
from nazx_cli.training.scratch.run import OnRows

TRAINING = "training"
KINDS = ("inattention:3", "full")
LENGTHS = (4000, 8000, 16_000, 32_000)
_SELF = "nazx_cli.bench.processes.training"
_PEER = "its scores alone, kept (computed)"


def training(setup: Setup) -> Iterator[Row]:
    """For each attention and length bytes and seconds of a step; then how the bytes grow."""
    settings = setup.settings
    for kind in KINDS:
        taken: list[tuple[int, float]] = []
        for count in settings.contexts or LENGTHS:
            setup.note(f"{TRAINING}: {kind}, {count:,} tokens, in a process of its own")
            real = measured(_SELF, kind, str(count), str(settings.threads))
            grown, label = one(real["grown"]), f"memory of a step, {kind}"
            row = Row(TRAINING, label, count, "bytes", real["dtype"], grown)
            yield replace(row, peer=_PEER, theirs=one(real["scores"]))
            seconds = one(real["seconds"])
            yield replace(row, measure=f"time of a step, {kind}", unit="s", ours=seconds)
            taken.append((count, real["grown"]))
        if len(taken) > 1:
            k = one(exponent(taken))
            yield replace(row, measure=f"k of memory ~ N^k, {kind}", unit="", ours=k)


def _measure(kind: str, count: int, threads: int) -> dict[str, Any]:
    """Seconds of a step, what it adds at its peak to the resident memory of the process with the
    model, and the bytes of all scores of all heads."""
    torch.set_num_threads(threads)
    shape = Shape(context=count)
    config = ModelConfig.from_dict(shape.config(parse_attention(kind)))
    decoder = new_decoder(config, 0)
    exact = [p.detach().clone() for p in decoder.parameters()]
    decoder = decoder.to(resolve_dtype("auto", torch.device("cpu")))
    ids = zipf_ids(config.vocab_size, count + 1).long()
    before = probe.resident_bytes()
    engine = OnRows(decoder, exact, count)
    seconds, _ = clock(lambda: engine.loss(Rows(ids.unsqueeze(0)), 1 / count))
    heads = config.num_layers * config.num_heads
    return {
        "dtype": str(decoder.dtype).removeprefix("torch."),
        "seconds": seconds,
        "grown": probe.peak_resident_bytes() - before,
        "scores": heads * count * count * decoder.dtype.itemsize,
    }


if __name__ == "__main__":
    found = _measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(found) + "\n")
