"""Workload ``attention``: one layer, one query, over posting lists and over a dense cache.

The layer has random weights and is one of the named model's shapes. Ours is the layout's own
``attend``, from an un-rotated query to values, with everything that is derived once per context
in place, as the dense side has its rotated keys and values in place. The dense side is the
fastest of several forms. The query is so large that scores spread by about 2, which makes
attention far from flat; what ours gives is compared with an exact result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from nazx_cli.bench.models import DISTRIBUTIONS, row_of
from nazx_cli.bench.results import Row, Spread, alternate, clock, timed
from nazx_cli.bench.setup import Setup
from nazx_cli.context.cells import standing_for
from nazx_cli.context.context import TokenSequence
from nazx_cli.context.cost import kv_bytes_per_position
from nazx_cli.context.layout import Layout, Projections
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.kernels.rotary import Rotation
from nazx_cli.memory.probe import read_memory

NAME = "attention"
CASES = (("nazx-160m", 100_000), ("nazx-160m", 1_000_000), ("nazx-1b", 400_000))
LAYOUTS = ("pairs",)
_SCORES = 2.0  # standard deviation of scores
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.03, torch.float16: 0.03}
_BLOCK = 65_536  # positions rotated at a time
_HOPELESS = 2.0  # forms that take so many times the fastest one's time are run once only


def run(setup: Setup) -> Iterator[Row]:
    """A row for each shape and length, distribution, type and layout."""
    settings = setup.settings
    contexts = settings.contexts or (() if settings.larger else (CASES[0][1],))
    cases = [(settings.shapes, count) for count in contexts] or CASES
    for shapes, count in cases:
        for dtype in setup.dtypes():
            setup.note(f"{NAME}: {shapes}, {count:,} tokens")
            models = setup.random_models(LAYOUTS, dtype, shapes, num_layers=1)
            for name, draw in DISTRIBUTIONS.items():
                ids = draw(models[0].config, count)
                for lm in models:
                    case = _Case(lm, ids)
                    if case.fits(setup):
                        yield case.row(setup, f"one layer, {shapes}, {name}")


class _Case:
    """One layer over one context, both sides."""

    def __init__(self, lm: LanguageModel, ids: Tensor) -> None:
        self.lm, n = lm, len(ids)
        self.layout = _synced(lm, ids)
        tokens = TokenSequence()
        tokens.insert(0, ids, True)
        self.ids = standing_for(tokens, lm.config).slice(0, n)
        self.projections = self.layout.projections
        self.phases = self.projections.rotary.phases(n - 1, n, n, "cpu")[0]
        self.query = _query(
            self.projections.keys_values(0, self.projections.states(self.ids[:1000]))[0]
        )

    def fits(self, setup: Setup) -> bool:
        """Whether there is room for the dense cache with its keys laid out both ways."""
        position = kv_bytes_per_position(self.lm.config, self.lm.decoder.dtype.itemsize)
        need, free = int(position * len(self.ids) * 1.5), read_memory("cpu").free
        if 0 < free < need + (1 << 30):
            setup.note(f"{NAME}: left out, the dense side takes {need / 1e9:.1f} GB")
            return False
        return True

    def attend(self) -> Tensor:
        """Our side: (H, D) float32."""
        return self.layout.attend(0, self.query, self.phases).values

    def row(self, setup: Setup, measure: str) -> Row:
        """Run both sides in turns."""
        dtype = self.lm.decoder.dtype
        with torch.inference_mode():
            truth = exact(self.projections, self.ids, self.query)
            cache = DenseCache(self.projections, self.ids)
            turned = Rotation(self.phases[None], dtype)(self.query[None])[0]
            forms = cache.forms(turned)
            errors = {name: _error(form(), truth) for name, form in forms.items()}
            ours, theirs = self._measured(setup, forms)
            error = _error(self.attend(), truth)
        fastest = min(theirs, key=lambda name: theirs[name].median)
        is_void = not error <= _TOLERANCE[dtype]
        return row_of(
            self.lm,
            NAME,
            measure,
            len(self.ids),
            ours,
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
        sides = [timed(self.attend), *(timed(forms[name]) for name in kept)]
        ours, *theirs = alternate(sides, setup.settings.repeat)
        spreads = {name: Spread((seconds,)) for name, seconds in once.items()}
        spreads |= {name: Spread(runs) for name, runs in zip(kept, theirs, strict=True)}
        return Spread(ours), spreads


def _synced(lm: LanguageModel, ids: Tensor) -> Layout:
    """The layout of a context of ``ids``, with all that it derives from them."""
    context = lm.new_context()
    context.append(ids, resident=True)
    layout = cast(Layout, context.memory)
    with torch.inference_mode():
        layout.sync(standing_for(context.tokens, lm.config))
    return layout


def _query(keys: Tensor) -> Tensor:
    """(H, D) random, such that scores with keys (n, H, D) spread by ``_SCORES``."""
    heads, dim = keys.shape[1:]
    query = torch.randn(heads, dim, generator=torch.Generator().manual_seed(1))
    return (query * (_SCORES / float(keys.float().std()))).to(keys.dtype)


def _error(found: Tensor, truth: Tensor) -> float:
    """Relative error of (H, D): distance over length."""
    return float((found.double() - truth).norm() / truth.norm())


class DenseCache:
    """Rotated keys and values of every position of ids (N,), as a model without posting lists
    keeps them: contiguous, in the model's type, each form of attention with its best layout.

    keys, values: (H, N, D); turned_keys: (H, D, N).
    """

    def __init__(self, projections: Projections, ids: Tensor) -> None:
        p, c, n = projections, projections.config, len(ids)
        distinct, at = torch.unique(ids, return_inverse=True)
        k, v = p.keys_values(0, p.states(distinct))  # (U, H, D) each
        self.keys = torch.empty(c.num_kv_heads, n, c.head_dim, dtype=p.dtype)
        self.values = torch.empty_like(self.keys)
        for span, turned in _turned(p, k, at, p.dtype):
            self.keys[:, span] = turned.transpose(0, 1)
            self.values[:, span] = v[at[span]].transpose(0, 1)
        self.turned_keys = self.keys.transpose(1, 2).contiguous()

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, without the second copy of the keys."""
        return self.keys.nbytes + self.values.nbytes

    def forms(self, query: Tensor) -> dict[str, Callable[[], Tensor]]:
        """The ways to attend with a rotated query (H, D) of the cache's type, by name; each
        gives (H, D)."""
        row = query[:, None]  # (H, 1, D)
        scaled = row * query.shape[-1] ** -0.5
        keys, turned, values = self.keys, self.turned_keys, self.values
        return {
            "sdpa": lambda: F.scaled_dot_product_attention(row[None], keys[None], values[None])[
                0, :, 0
            ],
            "matmul": lambda: torch.bmm(
                torch.bmm(scaled, keys.transpose(1, 2)).softmax(-1), values
            )[:, 0],
            "matmul over turned keys": lambda: torch.bmm(
                torch.bmm(scaled, turned).softmax(-1), values
            )[:, 0],
            "head by head": lambda: torch.stack(
                [
                    torch.mv(v.t(), torch.mv(k, q).softmax(0))
                    for q, k, v in zip(scaled[:, 0], keys, values, strict=True)
                ]
            ),
        }


def exact(projections: Projections, ids: Tensor, query: Tensor) -> Tensor:
    """(H, D) float64: the same attention of an un-rotated query (H, D) at the last position,
    all arithmetic after the projections in float32 and sums in float64."""
    p, n = projections, len(ids)
    distinct, at = torch.unique(ids, return_inverse=True)
    k, v = (rows.float() for rows in p.keys_values(0, p.states(distinct)))
    last = Rotation(p.rotary.phases(n - 1, n, n, p.device), torch.float32)
    q = last(query.float()[None])[0] * query.shape[-1] ** -0.5
    parts = []
    for span, turned in _turned(p, k, at, torch.float32):
        scores = torch.einsum("nhd,hd->hn", turned, q).double()
        weights = torch.zeros(len(q), len(distinct), dtype=torch.float64)
        top = scores.amax(1, keepdim=True)
        weights.index_add_(1, at[span], (scores - top).exp())
        parts.append((top, weights))
    highest = torch.stack([top for top, _ in parts]).amax(0)
    total = torch.stack([weights * (top - highest).exp() for top, weights in parts]).sum(0)
    return torch.einsum("hu,uhd->hd", total / total.sum(1, keepdim=True), v.double())


def _turned(
    p: Projections, keys: Tensor, at: Tensor, dtype: torch.dtype
) -> Iterator[tuple[slice, Tensor]]:
    """Spans of positions with their rotated keys (n, H, D), of which ``keys`` (U, H, D) has those
    of distinct tokens, and ``at`` (N,) each position's row."""
    for start in range(0, len(at), _BLOCK):
        span = slice(start, min(start + _BLOCK, len(at)))
        turn = Rotation(p.rotary.phases(span.start, span.stop, len(at), p.device), dtype)
        yield span, turn(keys[at[span]])
