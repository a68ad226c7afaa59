"""Workloads ``prefill``, ``decode`` and ``decode-long``: what a prompt and a further token take.

The first two run the real model beside its rivals. ``decode-long`` is one more token after a long
context, whole model, beside transformers' GPT-NeoX of the same shapes on a dense cache of that
length. Both have random weights. transformers' cache is filled with random keys and values in place
of a prefill of many minutes: how long a token takes does not depend on them. It is the library's
default, which is copied whenever it grows, and then a static one, which is not. Ids are drawn so
that as many are distinct as in prose, and by Zipf's law.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from nazx_cli.bench.models import DISTRIBUTIONS, Engine, Ours, distinct_of, row_of, zipf_ids
from nazx_cli.bench.peers import transformers_peer
from nazx_cli.bench.results import Row, Side, Spread, clock, timed
from nazx_cli.bench.setup import Setup
from nazx_cli.context import cost
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.memory.estimate import bytes_per_token
from nazx_cli.memory.probe import read_memory

PREFILL, DECODE, LONG = "prefill", "decode", "decode-long"
CONTEXTS = (100_000,)
LAYOUTS = ("pairs",)
_CACHES = ("dynamic", "static")
_READ = 8_192, 4_096  # float32 numbers that are read to learn how fast memory is
_COPIES = 1.3  # times the cache: its layers are copied one after another to add a position

Clocked = Callable[[Engine, Tensor], float]
"""Seconds of an engine that is given ids (T,)."""


def prefill(setup: Setup) -> Iterator[Row]:
    """From ids to the logits after them: for each prompt length a row for each way to hold the
    weights and each rival."""
    for length in setup.prompt_lengths():
        yield from _compared(setup, PREFILL, "prefill", length, prefill_seconds, {})


def decode(setup: Setup) -> Iterator[Row]:
    """Seconds per token of a greedy answer, for the same prompts.

    Every run starts from a prompt that has just been taken in, so that all sides pay for
    growing their caches. Each row of ours has the limit beside it: how long the weights that a
    token reads take to be read, at the speed at which a large matrix is added up, which takes its
    turns with the models.
    """
    count = setup.settings.new_tokens
    for length in setup.prompt_lengths():
        yield from _compared(
            setup,
            DECODE,
            "time per token",
            length,
            lambda engine, ids: seconds_per_token(engine, ids, count),
            {"new_tokens": count},
            limited=True,
        )


def prefill_seconds(engine: Engine, ids: Tensor) -> float:
    """Of ids (T,), from an empty cache to the logits after the last."""
    return clock(lambda: engine.prefill(ids))[0]


def seconds_per_token(engine: Engine, ids: Tensor, count: int) -> float:
    """Of ``count`` tokens after a prompt of ids (T,), which is taken in first."""
    cache, logits = engine.prefill(ids)
    token = int(logits.argmax())
    return clock(lambda: engine.decode(cache, token, count))[0] / count


def _compared(
    setup: Setup,
    workload: str,
    measure: str,
    length: int,
    clocked: Clocked,
    details: Mapping[str, float | int],
    *,
    limited: bool = False,
) -> Iterator[Row]:
    """Every model and rival in turns, over a prompt of ``length``; a row for each model and rival.
    Quantized models only meet rivals that are quantized too."""
    ids = zipf_ids(setup.lm.config.vocab_size, length)
    rivals = {rival.name: rival.engine for rival in setup.rivals if rival.engine}
    engines: list[Engine] = [*map(Ours, setup.models), *rivals.values()]
    sides: list[Side] = [partial(clocked, engine, ids) for engine in engines]
    if limited:
        sides.append(timed(torch.sum, torch.ones(_READ)))
    runs = setup.alternate(f"{workload}, {length:,} tokens", sides)
    logits = [engine.prefill(ids)[1].float() for engine in engines]
    theirs = {name: at for at, name in enumerate(rivals, len(setup.models))}
    for at, lm in enumerate(setup.models):
        precision = lm.quantization or lm.dtype
        for rival in setup.rivals:
            if lm.quantization and rival.precision == setup.lm.dtype:
                continue
            other, found = theirs.get(rival.name), dict(details)
            if limited:
                read = bytes_per_token(lm.config, precision, lm.decoder.dtype.itemsize)
                found["limit_seconds"] = Spread(runs[-1]).median * read / (4 * math.prod(_READ))
            if other is not None:
                difference = (logits[at] - logits[other]).abs().max()
                found["largest_logit_difference"] = float(difference)
            yield Row(
                workload,
                measure,
                length,
                "s",
                precision,
                Spread(runs[at]),
                peer=rival.name,
                theirs=None if other is None else Spread(runs[other]),
                note=rival.note_beside(precision),
                details=found,
            )


def decode_long(setup: Setup) -> Iterator[Row]:
    """One more token after a long context: a row for each type, length, cache and layout."""
    for dtype in setup.dtypes():
        models = setup.random_models(LAYOUTS, dtype)
        peer = None
        if transformers_peer.is_installed():
            peer = transformers_peer.TransformersPeer.random(models[0].config, dtype)
        for count in setup.settings.contexts or CONTEXTS:
            for cache in _CACHES if peer else _CACHES[:1]:
                yield from _long_rows(setup, models, peer, count, cache)


def _long_rows(
    setup: Setup,
    models: list[LanguageModel],
    peer: transformers_peer.TransformersPeer | None,
    count: int,
    cache: str,
) -> Iterator[Row]:
    config, dtype = models[0].config, models[0].dtype
    drawn = {name: draw(config, count) for name, draw in DISTRIBUTIONS.items()}
    cases = [(lm, name) for name in drawn for lm in models]
    engines = [Ours(lm) for lm, _ in cases]
    sides = [
        timed(engine.decode, engine.prefill(drawn[name])[0], 1, 1)
        for engine, (_, name) in zip(engines, cases, strict=True)
    ]
    note = transformers_peer.MISSING
    if peer and _fits(models[0], count):
        setup.note(f"{LONG}: filling a {cache} cache of {count:,} tokens")
        room = setup.settings.repeat + 1 if cache == "static" else None  # one run warms up
        sides.append(timed(peer.decode, peer.filled_cache(count, room), 1, 1))
        note = "its cache is filled at random, not by a prefill"
    elif peer:
        note = "its cache has no room in this machine's memory"
    runs = setup.alternate(f"{LONG} after {count:,} tokens, {dtype}", sides)
    for (lm, name), ours in zip(cases, runs, strict=False):
        yield row_of(
            lm,
            LONG,
            f"time per token, {lm.name}, {name}",
            count,
            Spread(ours),
            peer=f"{peer.name}, {cache} cache" if peer else transformers_peer.TRANSFORMERS,
            theirs=Spread(runs[-1]) if len(runs) > len(cases) else None,
            note=note,
            details=distinct_of(drawn[name], config),
        )


def _fits(lm: LanguageModel, count: int) -> bool:
    width = lm.decoder.dtype.itemsize
    need = count * cost.kv_bytes_per_position(lm.config, width) * _COPIES
    return not 0 < read_memory("cpu").free < need
