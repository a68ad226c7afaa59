"""Workload ``memory``: what a context holds, layout by layout, beside a dense cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from nazx_cli.bench.results import Row, Spread
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.shapes import inattention_config, random_decoder, random_model, zipf_ids
from nazx_cli.bench.timing import clock
from nazx_cli.config import ModelConfig
from nazx_cli.context import cost
from nazx_cli.context.context import Context
from nazx_cli.context.layout import Layout
from nazx_cli.context.layouts import LAYOUTS
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.weights.load import resolve_dtype

NAME = "memory"
CONTEXTS = (10_000, 100_000, 1_000_000)
_MOST = 4_000_000_000  # bytes: a layout that needs more is left out


def run(setup: Setup) -> Iterator[Row]:
    """A row for each length and layout: bytes held, predicted, and of a dense cache."""
    settings = setup.settings
    config = inattention_config(settings.shapes)
    dtype = resolve_dtype(settings.dtype, torch.device("cpu"))
    setup.note(f"{NAME}: making a random model of {settings.shapes} shapes")
    decoder = random_decoder(config, dtype)
    models = [
        random_model(settings.shapes, decoder, layout) for layout in settings.layouts or LAYOUTS
    ]
    for count in settings.contexts or CONTEXTS:
        ids = zipf_ids(config.vocab_size, count)
        size = cost.Size(count, len(torch.unique(ids)))
        for lm in models:
            label = f"{NAME}: {count:,} tokens, layout {lm.layout}"
            predicted = cost.context_bytes(config, lm.layout, size, dtype.itemsize)
            if predicted >= _MOST:
                setup.note(f"{label}: left out, it would take {predicted / 1e9:.1f} GB")
                continue
            setup.note(label)
            yield _row(lm, config, ids, size, predicted)


def _row(
    lm: LanguageModel, config: ModelConfig, ids: Tensor, size: cost.Size, predicted: int
) -> Row:
    seconds, context = clock(lambda: _built(lm, ids))
    dense = size.positions * cost.kv_bytes_per_position(config, lm.decoder.dtype.itemsize)
    return Row(
        workload=NAME,
        measure="bytes held",
        tokens=size.positions,
        unit="bytes",
        dtype=lm.dtype,
        ours=Spread((float(context.nbytes),)),
        layout=lm.layout,
        peer="dense cache",
        theirs=Spread((float(dense),)),
        details={
            "predicted_bytes": predicted,
            "build_seconds": seconds,
            "distinct_tokens": size.distinct,
        },
    )


def _built(lm: LanguageModel, ids: Tensor) -> Context:
    """A context of ``ids`` with everything derived that its layout keeps."""
    context = lm.new_context()
    context.append(ids, resident=True)
    with torch.inference_mode():
        cast(Layout, context.memory).sync(context.tokens)
    return context
