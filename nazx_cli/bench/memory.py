"""Workload ``memory``: what a context holds, layout by layout, beside a dense cache.

The dense cache's size is computed, since most of them cannot be allocated. The longest context
of the default layout then runs in a process of its own, whose memory is watched.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from nazx_cli.bench import peak
from nazx_cli.bench.engine import kernel_of
from nazx_cli.bench.results import Row, one
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.shapes import inattention_config, random_decoder, random_model, zipf_ids
from nazx_cli.bench.timing import clock
from nazx_cli.checkpoint.load import resolve_dtype
from nazx_cli.config import ModelConfig
from nazx_cli.context import cost
from nazx_cli.context.context import Context
from nazx_cli.context.layouts import LAYOUTS
from nazx_cli.engine.language_model import LanguageModel

NAME = "memory"
CONTEXTS = (10_000, 100_000, 1_000_000, 3_000_000)
WATCHED = "pairs"
_MOST = 4_000_000_000  # bytes: a layout that needs more is left out


def run(setup: Setup) -> Iterator[Row]:
    """For each length and layout bytes held, in all and by position, beside a dense cache's;
    then the peak of a process that gives a token after the longest context."""
    settings = setup.settings
    config = inattention_config(settings.shapes)
    dtype = resolve_dtype(settings.dtype, torch.device("cpu"))
    setup.note(f"{NAME}: making a random model of {settings.shapes} shapes")
    decoder = random_decoder(config, dtype)
    models = [
        random_model(settings.shapes, decoder, layout) for layout in settings.layouts or LAYOUTS
    ]
    contexts = settings.contexts or CONTEXTS
    for count in contexts:
        ids = zipf_ids(config.vocab_size, count)
        for lm in models:
            label = f"{NAME}: {count:,} tokens, layout {lm.layout}"
            size = cost.Size(count, len(torch.unique(ids)), native=kernel_of(lm) == "compiled")
            predicted = cost.context_bytes(config, lm.layout, size, dtype.itemsize)
            if predicted >= _MOST:
                setup.note(f"{label}: left out, it would take {predicted / 1e9:.1f} GB")
                continue
            setup.note(label)
            yield _row(lm, ids, size, predicted)
    del decoder, models
    if not settings.layouts or WATCHED in settings.layouts:
        yield _peak(setup, config, dtype, max(contexts))


def _row(lm: LanguageModel, ids: Tensor, size: cost.Size, predicted: int) -> Row:
    seconds, context = clock(lambda: _built(lm, ids))
    per_position = cost.kv_bytes_per_position(lm.config, lm.decoder.dtype.itemsize)
    return Row(
        workload=NAME,
        measure="bytes held",
        tokens=size.positions,
        unit="bytes",
        dtype=lm.dtype,
        ours=one(context.nbytes),
        layout=lm.layout,
        kernel=kernel_of(lm),
        peer="dense cache (computed)",
        theirs=one(size.positions * per_position),
        details={
            "per_position_bytes": context.nbytes / size.positions,
            "dense_per_position_bytes": per_position,
            "predicted_bytes": predicted,
            "first_token_seconds": seconds,
            "distinct_tokens": size.distinct,
        },
    )


def _built(lm: LanguageModel, ids: Tensor) -> Context:
    """A context of ``ids`` with all that its layout keeps once it has given a token."""
    context = lm.new_context()
    context.append(ids, resident=True)
    lm.next_logits(context)
    return context


def _peak(setup: Setup, config: ModelConfig, dtype: torch.dtype, count: int) -> Row:
    """What a process of its own takes to load the model and give a token."""
    shapes = setup.settings.shapes
    with TemporaryDirectory(prefix="nazx-bench-") as scratch:
        setup.note(f"{NAME}: {count:,} tokens in a process of its own")
        folder = peak.random_checkpoint(Path(scratch), shapes)
        precision = str(dtype).removeprefix("torch.")
        real = peak.measured(folder, precision, WATCHED, count)
    dense = count * cost.kv_bytes_per_position(config, dtype.itemsize)
    return Row(
        workload=NAME,
        measure="process peak, weights and all",
        tokens=count,
        unit="bytes",
        dtype=precision,
        ours=one(real["growth"]),
        layout=WATCHED,
        kernel="compiled" if real["native"] else "portable",
        peer="weights and dense cache (computed)",
        theirs=one(dense + real["weights"]),
        details={
            "weights_bytes": real["weights"],
            "context_bytes": real["context"],
            "first_token_seconds": real["first_token"],
            "further_token_seconds": real["further_token"],
        },
    )
