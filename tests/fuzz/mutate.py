"""Seeded changes to inputs: to bytes, to JSON values, and values drawn from a strategy."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")

_INTERESTING = (b"\0", b"\xff", b"\x1b[2J", b"\x9b2J", "\u202e".encode(), b"\xed\xa0\x80", b"\r\n")
_NUMBERS = (0, -1, 1, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30)
_DIGITS = re.compile(rb"-?\d+")
_LONGEST = 1 << 22  # bytes that a mutation may make a case grow to


def mutated(
    rng: random.Random,
    data: bytes,
    tokens: Sequence[bytes] = (),
    others: Sequence[bytes] = (),
) -> bytes:
    """``data`` after one to four changes.

    ``tokens`` are what the format gives a meaning to; ``others`` are inputs to take parts from.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        data = rng.choice(_CHANGES)(rng, data, (*tokens, *_INTERESTING), others or (data,))
    return data[:_LONGEST]


_Change = Callable[[random.Random, bytes, Sequence[bytes], Sequence[bytes]], bytes]


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    """A stretch of ``data``, mostly a short one."""
    start = rng.randint(0, len(data))
    most = rng.choice((1, 4, 16, 256, 1 << 16))
    return start, min(len(data), start + rng.randint(0, most))


def _flip(
    rng: random.Random, data: bytes, tokens: Sequence[bytes], others: Sequence[bytes]
) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 32)) if data else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(
    rng: random.Random, data: bytes, tokens: Sequence[bytes], others: Sequence[bytes]
) -> bytes:
    cut = rng.randint(0, len(data))
    return data[cut:] if rng.random() < 0.2 else data[:cut]


def _delete(
    rng: random.Random, data: bytes, tokens: Sequence[bytes], others: Sequence[bytes]
) -> bytes:
    start, stop = _span(rng, data)
    return data[:start] + data[stop:]


def _repeat(
    rng: random.Random, data: bytes, tokens: Sequence[bytes], others: Sequence[bytes]
) -> bytes:
    start, stop = _span(rng, data)
    times = rng.choice((2, 10, 1000, 100_000))
    times = min(times, _LONGEST // max(1, stop - start))
    return data[:start] + data[start:stop] * times + data[stop:]


def _splice(
    rng: random.Random, data: bytes, tokens: Sequence[bytes], others: Sequence[bytes]
) -> bytes:
    other = rng.choice(others)
    start, stop = _span(rng, other)
    at = rng.randint(0, len(data))
    return data[:at] + other[start:stop] + data[at + rng.choice((0, stop - start)) :]


def _insert(
    rng: random.Random, data: bytes, tokens: Sequence[bytes], others: Sequence[bytes]
) -> bytes:
    at = rng.randint(0, len(data))
    token = rng.choice(tokens) * rng.choice((1, 1, 2, 50, 20_000))
    return data[:at] + token[:_LONGEST] + data[at:]


def _number(
    rng: random.Random, data: bytes, tokens: Sequence[bytes], others: Sequence[bytes]
) -> bytes:
    """A number, written out or in binary, goes to an extreme."""
    number = rng.choice(_NUMBERS)
    written = list(_DIGITS.finditer(data[: 1 << 20]))
    if written and rng.random() < 0.5:
        found = rng.choice(written)
        return data[: found.start()] + str(number).encode() + data[found.end() :]
    width = rng.choice((1, 2, 4, 8))
    at = rng.randint(0, max(0, len(data) - width))
    binary = (number % (1 << 8 * width)).to_bytes(width, rng.choice(("little", "big")))
    return data[:at] + binary + data[at + width :]


_CHANGES: tuple[_Change, ...] = (
    *(_flip, _truncate, _delete, _repeat, _splice, _insert, _insert, _number),
)

_LEAVES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1e308, float("nan"), float("inf"), 2**63, -(2**63), 10**400),
    *("", "\0", "\x1b[2J", "\u202e", "\ud800", "x" * 100_000, "../../x", [], {}, [[]], {"": None}),
)


def mutated_json(rng: random.Random, value: Any, leaves: Sequence[Any] = ()) -> Any:
    """A copy of a JSON value with one to three of its parts changed, dropped, doubled or nested.

    ``leaves`` are further values to put in.
    """
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return rng.choice((*_LEAVES, *leaves))
        holder, key = rng.choice(places)
        change = rng.randrange(6)
        if change == 0:
            del holder[key]
        elif change == 1:
            other_holder, other_key = rng.choice(places)
            holder[key] = copy.deepcopy(other_holder[other_key])
        elif change == 2:
            for _ in range(rng.choice((1, 10, 300))):
                holder[key] = [holder[key]] if rng.random() < 0.5 else {"x": holder[key]}
        else:
            holder[key] = copy.deepcopy(rng.choice((*_LEAVES, *leaves)))
    return value


def _places(value: Any) -> Any:
    """(holder, key) of everything inside a value."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def drawn(rng: random.Random, strategy: SearchStrategy[T], count: int = 20) -> list[T]:
    """Values that a strategy of hypothesis makes for a seed; at most ``count``."""
    found: list[T] = []

    @seed(rng.getrandbits(64))
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: T) -> None:
        found.append(value)

    collect()
    return found
