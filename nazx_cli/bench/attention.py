"""Workload ``attention``: one layer, one query, over posting lists and over a dense cache.

The layer has random weights and is one of the named model's shapes. Ours is the layout's own
``attend``, from an un-rotated query to values, with everything that is derived once per context
in place, as the dense side has its rotated keys and values in place. The dense side is the
fastest of several forms. The query is so large that scores spread by about 2, which makes
attention far from flat; what ours gives is compared with an exact result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from nazx_cli.bench.dense import DenseCache, exact
from nazx_cli.bench.engine import kernel_of
from nazx_cli.bench.results import Row, Spread
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.shapes import (
    inattention_config,
    prose_ids,
    random_decoder,
    random_model,
    zipf_ids,
)
from nazx_cli.bench.timing import Side, alternate, clock
from nazx_cli.context.context import Context
from nazx_cli.context.layout import Layout
from nazx_cli.context.rotation import Turn
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.memory.probe import read_memory

NAME = "attention"
CASES = (("nazx-160m", 100_000), ("nazx-160m", 1_000_000), ("nazx-1b", 400_000))
LAYOUTS = ("pairs",)
DISTRIBUTIONS: dict[str, Callable[[int, int], Tensor]] = {"Zipf": zipf_ids, "prose": prose_ids}
"""``Zipf``: p ~ 1 / rank; ``prose``: as many distinct tokens as English has."""

_SCORES = 2.0  # standard deviation of scores
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.03, torch.float16: 0.03}
_HOPELESS = 2.0  # forms that take so many times the fastest one's time are run once only


def run(setup: Setup) -> Iterator[Row]:
    """A row for each shape and length, distribution, type and layout."""
    settings = setup.settings
    contexts = settings.contexts or (() if settings.larger else (CASES[0][1],))
    cases = [(settings.shapes, count) for count in contexts] or CASES
    for shapes, count in cases:
        for dtype in setup.dtypes():
            config = replace(inattention_config(shapes), num_layers=1)
            setup.note(f"{NAME}: {shapes}, {count:,} tokens, {str(dtype).removeprefix('torch.')}")
            decoder = random_decoder(config, dtype)
            for name, draw in DISTRIBUTIONS.items():
                ids = draw(config.vocab_size, count)
                for layout in settings.layouts or LAYOUTS:
                    case = _Case(random_model(shapes, decoder, layout), ids)
                    if case.fits(setup):
                        yield case.row(setup, f"one layer, {shapes}, {name}")


class _Case:
    """One layer over one context, both sides."""

    def __init__(self, lm: LanguageModel, ids: Tensor) -> None:
        self.lm, self.ids = lm, ids
        config, n = lm.config, len(ids)
        self.layout = _synced(lm, ids)
        self.projections = self.layout.projections
        self.phases = self.projections.rotary.phases(n - 1, n, n, "cpu")[0]
        self.query = _query(self.projections.keys_values(0, self.projections.states(ids[:1000]))[0])
        self.dense_bytes = 2 * n * config.num_kv_heads * config.head_dim * lm.decoder.dtype.itemsize

    def fits(self, setup: Setup) -> bool:
        """Whether there is room for the dense cache with its keys laid out both ways."""
        need, free = int(self.dense_bytes * 1.5), read_memory("cpu").free
        if 0 < free < need + (1 << 30):
            setup.note(f"{NAME}: left out, the dense side takes {need / 1e9:.1f} GB")
            return False
        return True

    def attend(self) -> Tensor:
        """Our side: (H, D) float32."""
        return self.layout.attend(0, self.query, self.phases)

    def row(self, setup: Setup, measure: str) -> Row:
        """Run both sides in turns."""
        dtype = self.lm.decoder.dtype
        with torch.inference_mode():
            truth = exact(self.projections, self.ids, self.query)
            cache = DenseCache(self.projections, self.ids)
            turned = Turn(self.phases[None], dtype)(self.query[None])[0]
            forms = cache.forms(turned)
            errors = {name: _error(form(), truth) for name, form in forms.items()}
            ours, theirs = self._measured(setup, forms)
            error = _error(self.attend(), truth)
        fastest = min(theirs, key=lambda name: theirs[name].median)
        is_void = not error <= _TOLERANCE[dtype]
        return Row(
            workload=NAME,
            measure=measure,
            tokens=len(self.ids),
            unit="s",
            dtype=self.lm.dtype,
            ours=ours,
            layout=self.lm.layout,
            kernel=kernel_of(self.lm),
            peer=f"dense cache, {fastest}",
            theirs=None if is_void else theirs[fastest],
            note=f"void: the result is off by {error:.1g}" if is_void else "",
            details={
                "distinct_tokens": len(torch.unique(self.ids)),
                "relative_error": error,
                "dense_relative_error": errors[fastest],
                "dense_cache_bytes": cache.nbytes,
                "context_bytes": self.layout.nbytes,
                **{f"dense_{name}_seconds": spread.median for name, spread in theirs.items()},
            },
        )

    def _measured(
        self, setup: Setup, forms: dict[str, Callable[[], Tensor]]
    ) -> tuple[Spread, dict[str, Spread]]:
        """Our runs and those of every form."""
        self.attend()
        once = {name: min(clock(form)[0] for _ in range(2)) for name, form in forms.items()}
        limit = _HOPELESS * min(once.values())
        kept = [name for name, seconds in once.items() if seconds <= limit]
        sides = [_timed(self.attend), *(_timed(forms[name]) for name in kept)]
        ours, *theirs = alternate(sides, setup.settings.repeat)
        spreads = {name: Spread((seconds,)) for name, seconds in once.items()}
        spreads |= {name: Spread(runs) for name, runs in zip(kept, theirs, strict=True)}
        return Spread(ours), spreads


def _timed(work: Callable[[], Tensor]) -> Side:
    return lambda: clock(work)[0]


def _synced(lm: LanguageModel, ids: Tensor) -> Layout:
    """The layout of a context of ``ids``, with all that it derives from them."""
    context: Context = lm.new_context()
    context.append(ids, resident=True)
    layout = cast(Layout, context.memory)
    with torch.inference_mode():
        layout.sync(context.tokens)
    return layout


def _query(keys: Tensor) -> Tensor:
    """(H, D) random, such that scores with keys (n, H, D) spread by ``_SCORES``."""
    heads, dim = keys.shape[1:]
    query = torch.randn(heads, dim, generator=torch.Generator().manual_seed(1))
    return (query * (_SCORES / float(keys.float().std()))).to(keys.dtype)


def _error(found: Tensor, truth: Tensor) -> float:
    """Relative error of (H, D): distance over length."""
    return float((found.double() - truth).norm() / truth.norm())
