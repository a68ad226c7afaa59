"""How the next token is chosen from logits; what does so is ``sampler``. No torch here, so that
settings can be read and shown without it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from nazx_cli.errors import ModelUnavailableError, UsageError
from nazx_cli.foreign import FETCH_AGAIN, Fields, read_object

BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 100.0),
    "top_k": (0, 1 << 31),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repeat_penalty": (0.01, 100.0),
    "seed": (0, (1 << 63) - 1),
}
"""The least and the greatest value of each setting."""


@dataclass(frozen=True)
class Sampling:
    """How to choose; the defaults are greedy.

    temperature     0 takes the likeliest token; otherwise logits are divided by it
    top_k           keep the k likeliest; 0 keeps all
    top_p           keep the smallest set whose probability reaches p (nucleus sampling)
    min_p           drop tokens less likely than min_p times the likeliest
    repeat_penalty  divide positive and multiply negative logits of recent tokens; 1 is off
    seed            the same seed gives the same text; None draws a new one
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                told = name.replace("_", "-")
                raise UsageError(f"{told} {value} is out of range", f"choose {low:g} to {high:g}")


def published_sampling(folder: Path) -> Sampling | None:
    """How a checkpoint's ``generation_config.json`` would have tokens drawn; None where it does not
    say that they are to be.

    ``ModelUnavailableError`` for values that make no sense.
    """
    path = folder / "generation_config.json"

    def complain(what: str) -> ModelUnavailableError:
        return ModelUnavailableError(f"{path}: {what}", f"correct it or {FETCH_AGAIN}")

    try:
        fields = Fields(read_object(path), complain)
    except FileNotFoundError:
        return None
    if not fields.flag("do_sample", False):
        return None
    return Sampling(
        fields.number("temperature", 1.0, *BOUNDS["temperature"]),
        fields.count("top_k", 0, minimum=0),
        fields.number("top_p", 1.0, *BOUNDS["top_p"]),
        fields.number("min_p", 0.0, *BOUNDS["min_p"]),
        fields.number("repetition_penalty", 1.0, *BOUNDS["repeat_penalty"]),
    )
