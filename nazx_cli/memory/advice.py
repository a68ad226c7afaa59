"""Which better model of the registry would fit the memory there is."""

from __future__ import annotations

from nazx_cli.catalog.registry import Registry
from nazx_cli.context.cost import Size
from nazx_cli.memory.estimate import estimate

_CONTEXT = Size(100_000, 7_000)  # a book


def better_model(name: str, limit: int, precision: str = "bfloat16") -> str | None:
    """One line that names the largest chat model of the registry that fits ``limit`` bytes with
    a book, where it is larger than ``name``, and the command to get it; None where there is none.
    """
    registry = Registry.load()
    entry = registry.find(name)
    if entry is None:
        return None
    fitting = [
        (other.config.num_parameters, other.name, found.total)
        for other in registry.entries.values()
        if other.chat
        and (found := estimate(other.config, precision, "cached", _CONTEXT)).total <= limit
    ]
    weights, best, total = max(fitting, default=(0, "", 0))
    if weights <= entry.config.num_parameters:
        return None
    return (
        f"{best} ({weights / 1e9:.1f} billion weights, {total / 1e9:.1f} GB) would fit too "
        f"and answers better: nazx pull {best}"
    )
