"""Workload ``decode-long``: one more token after a long context, whole model, beside
transformers' GPT-NeoX of the same shapes on a dense cache of that length.

Both have random weights. transformers' cache is filled with random keys and values in place of
a prefill of many minutes: how long a token takes does not depend on them. It is the library's
default, which is copied whenever it grows, and then a static one, which is not. Ids are drawn so
that as many are distinct as in prose, and by Zipf's law.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from nazx_cli.bench import peers
from nazx_cli.bench.attention import DISTRIBUTIONS
from nazx_cli.bench.engine import greedy, kernel_of, prefilled
from nazx_cli.bench.results import Row, Spread
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.shapes import (
    inattention_config,
    random_decoder,
    random_model,
)
from nazx_cli.bench.timing import Side, alternate, clock
from nazx_cli.config import ModelConfig
from nazx_cli.context import cost
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.memory.probe import read_memory

NAME = "decode-long"
CONTEXTS = (100_000,)
LAYOUTS = ("pairs",)
_CACHES = ("dynamic", "static")
_COPIES = 1.3  # times the cache: its layers are copied one after another to add a position


def run(setup: Setup) -> Iterator[Row]:
    """A row for each type, length and layout."""
    settings = setup.settings
    config = inattention_config(settings.shapes)
    for dtype in setup.dtypes():
        setup.note(f"{NAME}: making random models of {settings.shapes} shapes")
        decoder = random_decoder(config, dtype)
        peer = peers.TransformersPeer.random(config, dtype) if peers.is_installed() else None
        for count in settings.contexts or CONTEXTS:
            models = [
                random_model(settings.shapes, decoder, layout)
                for layout in settings.layouts or LAYOUTS
            ]
            for cache in _CACHES if peer else _CACHES[:1]:
                yield from _rows(setup, models, peer, count, cache)


def _rows(
    setup: Setup,
    models: list[LanguageModel],
    peer: peers.TransformersPeer | None,
    count: int,
    cache: str,
) -> Iterator[Row]:
    dtype = models[0].decoder.dtype
    vocab_size = models[0].config.vocab_size
    cases = [
        (lm, name, draw(vocab_size, count)) for name, draw in DISTRIBUTIONS.items() for lm in models
    ]
    sides = [_ours(lm, ids) for lm, _, ids in cases]
    note = peers.MISSING
    if peer and _fits(models[0].config, dtype, count):
        setup.note(f"{NAME}: filling a {cache} cache of {count:,} tokens")
        room = setup.settings.repeat + 1 if cache == "static" else None  # one run warms up
        sides.append(_theirs(peer, count, room))
        note = "its cache is filled at random, not by a prefill"
    elif peer:
        note = "its cache has no room in this machine's memory"
    label = f"{NAME} after {count:,} tokens, {models[0].dtype}"
    runs = alternate(sides, setup.settings.repeat, on_round=setup.rounds(label))
    for (lm, name, ids), ours in zip(cases, runs, strict=False):
        yield Row(
            workload=NAME,
            measure=f"time per token, {setup.settings.shapes}, {name}",
            tokens=count,
            unit="s",
            dtype=lm.dtype,
            ours=Spread(ours),
            layout=lm.layout,
            kernel=kernel_of(lm),
            peer=f"{peer.name}, {cache} cache" if peer else peers.TRANSFORMERS,
            theirs=Spread(runs[-1]) if len(runs) > len(cases) else None,
            note=note,
            details={"distinct_tokens": len(torch.unique(ids))},
        )


def _fits(config: ModelConfig, dtype: torch.dtype, count: int) -> bool:
    need = count * cost.kv_bytes_per_position(config, dtype.itemsize) * _COPIES
    free = read_memory("cpu").free
    return not 0 < free < need


def _ours(lm: LanguageModel, ids: torch.Tensor) -> Side:
    context, _ = prefilled(lm, ids)
    return lambda: clock(lambda: greedy(lm, context, 1, 1))[0]


def _theirs(peer: peers.TransformersPeer, count: int, room: int | None) -> Side:
    cache = peer.filled_cache(count, room)
    return lambda: clock(lambda: peer.decode(cache, 1, 1))[0]
