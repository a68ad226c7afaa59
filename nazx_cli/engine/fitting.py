"""Choosing weights and layout that keep to a memory limit: before loading, and as a context
grows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from weakref import WeakKeyDictionary

import torch

from nazx_cli.checkpoint.load import resolve_device, resolve_dtype
from nazx_cli.checkpoint.quantized import agreed_kind
from nazx_cli.config import ModelConfig
from nazx_cli.context.context import Context
from nazx_cli.context.cost import Size
from nazx_cli.context.native.kernel import kernel_for
from nazx_cli.context.triton.support import usable
from nazx_cli.errors import MemoryLimitError
from nazx_cli.memory.budget import LAYOUT_ORDER, Plan, default_limit, plan
from nazx_cli.memory.estimate import estimate
from nazx_cli.memory.probe import read_memory
from nazx_cli.model.attention.kinds import check_layout, layouts_of
from nazx_cli.quantization.cost import KINDS

_SHRINKING = ("tables", "states", "pairs", "postings", "ids")
_RECOUNT = 1024  # appended tokens after which a context's distinct tokens are counted again


@dataclass(frozen=True)
class Wish:
    """What a person asked for; ``limit`` None means what the device has free, less a margin.

    ``size`` is the context to make room for.
    """

    device: str
    dtype: str
    quantize: str | None
    layout: str
    limit: int | None
    size: Size


@dataclass(frozen=True)
class Fit:
    """What to load: the plan, and the limit it keeps to."""

    plan: Plan
    limit: int
    dtype: str
    quantize: str | None


def fit(folder: Path, wish: Wish) -> Fit:
    """The most precise weights and the fastest layout within the limit.

    ``auto`` may fall back to int8 and nf4 where bitsandbytes is installed; what was asked for by
    name stays. ``MemoryLimitError`` where nothing fits.
    """
    config = ModelConfig.from_folder(folder)
    device = resolve_device(wish.device)
    dtype = str(resolve_dtype(wish.dtype, device)).removeprefix("torch.")
    limit = wish.limit
    if limit is None:
        limit = default_limit(read_memory(str(device)).free)
    kind = agreed_kind(config, wish.quantize)
    precisions: tuple[str, ...] = (kind,) if kind else (dtype,)
    if not kind and wish.dtype == "auto" and find_spec("bitsandbytes"):
        precisions += KINDS
    triton = usable(config, device, getattr(torch, dtype))
    chosen = plan(
        config,
        limit,
        precisions=precisions,
        layouts=_layouts(config, wish.layout),
        positions=wish.size.positions,
        distinct=wish.size.distinct,
        native=not triton and kernel_for(config, device, getattr(torch, dtype)) is not None,
        triton=triton,
        quantized_width=4 if dtype == "float32" else 2,
    )
    quantize = chosen.precision if chosen.precision in KINDS else None
    return Fit(chosen, limit, dtype, quantize)


def _layouts(config: ModelConfig, wanted: str) -> tuple[str, ...]:
    there_are = layouts_of(config)
    if wanted == "auto":
        return LAYOUT_ORDER if "ids" in there_are else there_are
    return (check_layout(config, wanted),)


class Keeper:
    """Holds the contexts of one model to ``limit`` bytes, weights included.

    A context that would cross it moves to a smaller layout, which gives the same logits.
    """

    def __init__(
        self,
        config: ModelConfig,
        precision: str,
        width: int,
        limit: int,
        native: bool,
        triton: bool = False,
    ) -> None:
        self.limit = limit
        self._estimate = partial(estimate, config, precision, quantized_width=width)
        self._shrinks = config.attention.kind == "inattention"
        # context -> (length, distinct tokens) when they were last counted
        self._native, self._triton = native, triton
        self._counted: WeakKeyDictionary[Context, tuple[int, int]] = WeakKeyDictionary()

    def keep(self, context: Context, move: Callable[[Context, str], None]) -> None:
        """Call before logits are computed; ``move`` changes a context's layout.

        ``MemoryLimitError`` where not even the smallest layout fits.
        """
        if not self._shrinks:
            return
        size = self._size(context)
        if self._estimate(context.layout, size).total <= self.limit:
            return
        at = _SHRINKING.index(context.layout) if context.layout in _SHRINKING else 0
        for layout in _SHRINKING[at + 1 :]:
            if self._estimate(layout, size).total <= self.limit:
                move(context, layout)
                return
        needed = self._estimate("ids", size).total
        raise MemoryLimitError(
            f"the context has grown to {size.positions:,} tokens, which need "
            f"{needed / 1e9:.2f} GB; the limit is {self.limit / 1e9:.2f} GB",
            "drop a document, or raise --vram-limit",
        )

    def _size(self, context: Context) -> Size:
        length, distinct = self._counted.get(context, (-1, 0))
        if length < 0 or abs(len(context) - length) >= _RECOUNT:
            length = len(context)
            distinct = len(torch.unique(context.tokens.slice(0, length)))
            self._counted[context] = (length, distinct)
        return Size(len(context), distinct, native=self._native, triton=self._triton)
