"""Workload ``room``: how long a prompt a model is given, how long it takes to read, and what the
process takes for it, beside the plan that it was loaded by.

Random weights of the shapes that are asked for, with the attention that the registry has for them,
are loaded as they are and quantized while loading, in processes of their own: run as
``python -m nazx_cli.bench.processes.room FOLDER HELD`` this file is such a process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from nazx_cli.bench.models import registry_config, weight_bytes, zipf_ids
from nazx_cli.bench.processes.memory import measured, random_checkpoint
from nazx_cli.bench.results import Row, clock, one
from nazx_cli.bench.setup import Setup
from nazx_cli.engine.language_model import load_planned
from nazx_cli.memory import probe
from nazx_cli.memory.estimate import TextSize
from nazx_cli.memory.plan import LoadOptions
from nazx_cli.quantization.cost import KINDS
from nazx_cli.reading.passages import PASSAGE_TOKENS

ROOM = "room"
_SELF = "nazx_cli.bench.processes.room"
_ANSWER = 64  # tokens of the window that the prompt leaves free
_NO_LIMIT = 1 << 50


def room(setup: Setup) -> Iterator[Row]:
    """Two rows for each model and way to hold it: seconds of the longest prompt, and the peak of
    the process beside the estimate."""
    settings = setup.settings
    for shapes in filter(None, (settings.shapes, settings.larger)):
        with TemporaryDirectory(prefix="nazx-bench-") as scratch:
            setup.note(f"{ROOM}: writing a random checkpoint of {shapes} shapes")
            folder = random_checkpoint(Path(scratch), shapes, registry_config(shapes))
            for held in (settings.dtype, *settings.quantize):
                setup.note(f"{ROOM}: {shapes}, {held}, in a process of its own")
                real = measured(_SELF, str(folder), held, str(settings.threads))
                yield from _rows(shapes, held, real)


def _rows(shapes: str, held: str, real: dict[str, Any]) -> Iterator[Row]:
    tokens = int(real["tokens"])
    passages = tokens // PASSAGE_TOKENS
    row = Row(ROOM, f"a prompt of {shapes}", tokens, "s", held, one(real["prefill"]), "cached")
    yield replace(
        row,
        details={"passages": passages, "further_token_seconds": real["further_token"]},
        note=f"{passages} passages",
    )
    yield Row(
        ROOM,
        f"process peak of {shapes}",
        tokens,
        "bytes",
        held,
        one(real["peak"]),
        "cached",
        peer="estimate",
        theirs=one(real["predicted"]),
        details={
            "weights_bytes": real["weights"],
            "loading_peak_bytes": real["loading"],
            "before_bytes": real["before"],
        },
    )


def _measure(folder: Path, held: str, threads: int) -> dict[str, float]:
    """Seconds of the longest prompt and of a further token; bytes of weights, of resident memory
    before loading, at the peak of loading and at that of all, and of the plan's estimate."""
    torch.set_num_threads(threads)
    before = probe.resident_bytes()
    quantize = held if held in KINDS else None
    dtype = "bfloat16" if quantize else held
    options = LoadOptions("cpu", dtype, quantize, limit=_NO_LIMIT)
    lm = load_planned(folder.name, folder, TextSize(), options)
    loading = probe.peak_resident_bytes()
    assert lm.plan is not None and lm.window is not None
    context = lm.new_context()
    context.append(zipf_ids(lm.config.vocab_size, max(1, lm.window - _ANSWER)))
    tokens = len(context)
    prefill, _ = clock(lambda: lm.next_logits(context))
    context.append([1])
    further_token, _ = clock(lambda: lm.next_logits(context))
    return {
        "tokens": tokens,
        "prefill": prefill,
        "further_token": further_token,
        "weights": weight_bytes(lm),
        "before": before,
        "loading": loading,
        "peak": probe.peak_resident_bytes(),
        "predicted": lm.plan.estimate.total,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))) + "\n")
