"""Rotary position settings, and reading them from the several keys that files have them under."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nazx_cli.foreign import Fields

ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
_OLDER = {"su": "longrope"}
_ORIGINAL = "original_max_position_embeddings"
_SHARE = "partial_rotary_factor"


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position settings; ``dim`` is the number of rotated dimensions of a head.

    ``short`` and ``long`` divide each pair's frequency in sequences within and beyond
    ``original_positions`` (longrope only).
    """

    dim: int
    theta: float = 10_000.0
    kind: str = "default"
    factor: float = 1.0
    original_positions: int = 2048
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    attention_factor: float | None = None
    truncate: bool = True
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()


@dataclass(frozen=True)
class RopeKeys:
    """Where a family keeps what, and what it takes where nothing is said.

    Heads are rotated whole where there is no ``share_key``.
    """

    theta_key: str = "rope_theta"
    theta: float = 10_000.0
    share_key: str = ""
    share: float = 1.0
    older_types: Mapping[str, str] | None = None


def read_rope(
    reader: Fields, keys: RopeKeys, head_dim: int, max_positions: int, layers: str | None = None
) -> RopeConfig:
    """Merge the new key (``rope_parameters``) with the older ones, which may not contradict it.

    ``layers`` is the kind of layers (``full_attention``) whose settings are meant where a file
    has several.
    """
    entry = _entry(reader, keys, layers)
    rope = Fields(entry, reader.complain)
    named = _OLDER | dict(keys.older_types or {})
    if isinstance(entry.get("rope_type"), str):
        entry["rope_type"] = named.get(entry["rope_type"], entry["rope_type"])
    kind = rope.choice("rope_type", ROPE_TYPES, "default")
    share = rope.number(_SHARE, keys.share, 0.0, 1.0)
    if share != keys.share and not keys.share_key:
        raise reader.complain(f"{_SHARE} is {share:g}, but this family rotates whole heads")
    dim = int(head_dim * share)
    if dim % 2:
        raise reader.complain(f"{dim} rotated dimensions cannot be paired")
    # Transformers stretches dynamic frequencies from the whole context on, whatever else is named.
    original = max_positions if kind == "dynamic" else rope.count(_ORIGINAL, max_positions)
    stretched = kind in ("yarn", "longrope")
    default_factor = max(max_positions / original, 1.0) if stretched else None
    factor = 1.0 if kind == "default" else rope.number("factor", default_factor, 1.0, 1e6)
    attention_factor = None
    if entry.get("attention_factor") is not None:
        attention_factor = rope.number("attention_factor", None, 1e-3, 1e3)
    longrope = kind == "longrope"
    return RopeConfig(
        dim=dim,
        theta=rope.number("rope_theta", keys.theta, 1.0, 1e12),
        kind=kind,
        factor=factor,
        original_positions=original,
        low_freq_factor=rope.number("low_freq_factor", 1.0, 1e-6, 1e6),
        high_freq_factor=rope.number("high_freq_factor", 4.0, 1e-6, 1e6),
        beta_fast=rope.number("beta_fast", 32.0, 1e-6, 1e6) or 32.0,
        beta_slow=rope.number("beta_slow", 1.0, 1e-6, 1e6) or 1.0,
        mscale=rope.number("mscale", 0.0, 0.0, 1e3),
        mscale_all_dim=rope.number("mscale_all_dim", 0.0, 0.0, 1e3),
        attention_factor=attention_factor,
        truncate=rope.flag("truncate", True),
        short=_factors(rope, "short_factor", dim // 2) if longrope else (),
        long=_factors(rope, "long_factor", dim // 2) if longrope else (),
    )


def _entry(reader: Fields, keys: RopeKeys, layers: str | None) -> dict[str, Any]:
    data = reader.data
    entry: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = data.get(key)
        if isinstance(value, dict):
            own = value.get(layers) if layers else None
            said = own if isinstance(own, dict) else value
            part = {name: each for name, each in said.items() if each is not None}
            if "type" in part:
                part.setdefault("rope_type", part["type"])
            for name in part.keys() & entry.keys():
                if part[name] != entry[name]:
                    raise reader.complain(f"rope_scaling and rope_parameters differ in {name}")
            entry |= part
        elif value is not None:
            raise reader.complain(f"{key} is no JSON object")
    entry.setdefault("rope_theta", data.get(keys.theta_key, data.get("rope_theta")))
    entry.setdefault(_SHARE, data.get(keys.share_key or _SHARE))
    if data.get(_ORIGINAL) is not None:
        entry[_ORIGINAL] = data[_ORIGINAL]
    return entry


def _factors(rope: Fields, key: str, pairs: int) -> tuple[float, ...]:
    value = rope.data.get(key)
    if not isinstance(value, list) or len(value) != pairs:
        raise rope.complain(f"{key} is no list of {pairs} numbers, one for each rotated pair")
    for number in value:
        sound = isinstance(number, int | float) and not isinstance(number, bool)
        if not sound or not 1e-6 <= number <= 1e9 or not math.isfinite(number):
            raise rope.complain(f"{key} holds {number!r:.40}, which is no factor")
    return tuple(float(number) for number in value)
