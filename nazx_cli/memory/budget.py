"""Keeping to a limit: which weights and which layout fit, decided before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nazx_cli.config import ModelConfig
from nazx_cli.context.cost import Size
from nazx_cli.errors import MemoryLimitError
from nazx_cli.memory.estimate import Estimate, distinct_tokens, estimate, longest_context

LAYOUT_ORDER = ("pairs", "postings", "ids")
"""Layouts that ``auto`` chooses from, the fastest to a first token first."""

_MARGIN = 0.9  # of what a device has free: others use it too


@dataclass(frozen=True)
class Plan:
    """What was picked: how the weights are held, the layout, the arithmetic, and why.

    ``is_first_choice`` where nothing had to be given up.
    """

    precision: str
    layout: str
    estimate: Estimate
    reason: str
    is_first_choice: bool


def default_limit(free: int) -> int:
    """The limit where a person names none: what is free, less a margin."""
    return int(free * _MARGIN)


def plan(
    config: ModelConfig,
    limit: int,
    *,
    precisions: Iterable[str],
    layouts: Iterable[str],
    positions: int,
    distinct: int | None = None,
    native: bool = False,
    triton: bool = False,
    quantized_width: int = 2,
) -> Plan:
    """The most precise weights that fit ``limit`` bytes and, with them, the fastest layout.

    ``precisions`` and ``layouts`` are what may be chosen, best first; ``positions`` is the
    context to make room for, ``native`` and ``triton`` as in its ``Size``. ``MemoryLimitError``
    with the arithmetic where nothing fits.
    """
    if distinct is None:
        distinct = distinct_tokens(positions, config.vocab_size)
    size = Size(positions, distinct, native=native, triton=triton)
    tried = [
        estimate(config, precision, layout, size, quantized_width)
        for precision in precisions
        for layout in layouts
    ]
    for at, found in enumerate(tried):
        if found.total <= limit:
            reason = "all fits" if at == 0 else f"{_arithmetic(tried[0])} would not fit"
            return Plan(found.precision, found.layout, found, reason, at == 0)
    smallest = min(tried, key=lambda found: found.total)
    raise MemoryLimitError(
        f"this does not fit in {_gb(limit)}: {_arithmetic(smallest)}",
        _advice(config, smallest, limit),
    )


def describe(chosen: Plan, limit: int) -> str:
    """One line: what was picked and why."""
    return (
        f"{chosen.precision} weights, layout {chosen.layout}: "
        f"{_gb(chosen.estimate.total)} of {_gb(limit)} ({chosen.reason})"
    )


def _advice(config: ModelConfig, smallest: Estimate, limit: int) -> str:
    longest = longest_context(config, smallest.precision, smallest.layout, limit)
    if longest and longest < smallest.size.positions:
        return (
            f"with {smallest.precision} weights and layout {smallest.layout} "
            f"{longest:,} tokens fit: use --ctx {longest}, or a smaller model"
        )
    return "use a smaller model (nazx ls --all names them), or raise --vram-limit"


def _arithmetic(found: Estimate) -> str:
    return (
        f"{found.precision} weights {_gb(found.weights)} + context {_gb(found.context)} "
        f"({found.size.positions:,} tokens, {found.layout}) + workspace {_gb(found.workspace)} "
        f"= {_gb(found.total)}"
    )


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB"
