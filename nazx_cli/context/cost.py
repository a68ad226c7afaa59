"""What a context costs in bytes, layout by layout: the formulas that allocation follows.

No torch here, so that an estimate needs no model. N positions, U distinct tokens; C features,
L layers, 2F rotated dimensions of a head, ``width`` bytes per number of the model's type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nazx_cli.config import ModelConfig

_STEP = 256  # rows by which tables grow: context.growing.STEP
_TAIL_IDS = 1024 * 4  # the buffer of context.tokens
LIVE_SLACK = 512
"""Positions that a live cache keeps beyond its window."""
PHASE_BLOCK = 1024
"""Positions whose phases the compiled kernel adds up from two tables."""
PHASE_STEP = 64 * PHASE_BLOCK
PHASE_SPARE = 16
"""Numbers behind each of those tables."""
LANES = 16
"""Heads that the compiled kernel takes at a time, at most."""
SEGMENT_ROWS = 128
"""Positions of one program of the Triton kernel, and of its longest segments."""
SEGMENT_TAIL = 2_048
"""Positions that context.triton.segments appends before it cuts the lists again."""
_SPARE_POSITIONS = 512  # of context.native.position_lists
_PIECES = 2.6  # pieces per distinct token of a Zipf-distributed text
_SEGMENTS = 1.2  # and segments of context.triton, beside those that are full


@dataclass(frozen=True)
class Size:
    """A context's size: ``positions`` in all and ``distinct`` tokens among them; ``live`` is how
    many run through the layers of a windowed model (None: as many as its window takes).

    ``native`` tells whether the compiled kernel holds the index of layouts ``postings`` and
    ``pairs``; its index takes less. ``triton`` tells the same of the Triton kernel, whose lists
    are held twice: for edits, and cut into segments on the device.
    """

    positions: int
    distinct: int
    live: int | None = None
    native: bool = False
    triton: bool = False


def context_bytes(config: ModelConfig, layout: str, size: Size, width: int) -> int:
    """Bytes held for a context of ``size`` in ``layout``, ids included; ``width`` is the size
    of one number of the model's type (4 for float32, 2 for bfloat16)."""
    held = _live_cache if config.attention.kind != "inattention" else LAYOUT_BYTES[layout]
    return size.positions * 4 + _TAIL_IDS + int(held(config, size, width))


def live_positions(config: ModelConfig, size: Size) -> int:
    """Positions that run through the layers of a windowed or full model."""
    attention = config.attention
    if attention.kind == "full":
        return size.positions
    window = attention.local_window + attention.sink_tokens
    return window if size.live is None else size.live


def kv_bytes_per_position(config: ModelConfig, width: int) -> int:
    """Keys and values of all layers for one position of an ordinary dense cache."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * width


def _live_cache(config: ModelConfig, size: Size, width: int) -> float:
    """Keys and values that ``context.live_cache`` allocates, and the ids they belong to."""
    live, attention = live_positions(config, size), config.attention
    if attention.kind == "full":
        capacity = _rounded(live + live // 4)
    else:
        limit = attention.local_window + attention.sink_tokens + LIVE_SLACK
        capacity = min(_rounded(live), limit)
    return capacity * kv_bytes_per_position(config, width) + live * 4


def _rounded(rows: int) -> int:
    return -(-rows // _STEP) * _STEP


def _index(config: ModelConfig, size: Size) -> float:
    """Phases of every position, slots of every piece, the id-to-slot table."""
    phases = size.positions * config.rope.dim * 4
    pieces = min(size.positions, _PIECES * size.distinct) * 4
    return phases + pieces + (config.vocab_size + size.distinct) * 4


def _states(config: ModelConfig, size: Size, width: int) -> float:
    rows = _rounded(size.positions)
    return rows * (config.hidden_size * width + config.rope.dim * 4)


def _native_index(config: ModelConfig, size: Size) -> float:
    """Positions, list offsets, the two phase tables, the id-to-slot table."""
    lists = (size.positions + _SPARE_POSITIONS) * 4 + (size.distinct + 1) * 8
    blocks = -(-size.positions // PHASE_STEP) * (PHASE_STEP // PHASE_BLOCK)
    phases = ((blocks + PHASE_BLOCK) * config.rope.dim + 2 * PHASE_SPARE) * 4
    return lists + phases + (config.vocab_size + size.distinct) * 4


def heads_of_block(heads: int) -> int:
    """How many of ``heads`` the compiled kernel takes at a time: the most that divide them, up to
    ``LANES``."""
    return next(n for n in range(min(heads, LANES), 0, -1) if heads % n == 0)


def segments(size: Size) -> int:
    """About how many segments ``context.triton`` cuts the posting lists into, its tail included."""
    pieces = min(size.positions, _SEGMENTS * size.distinct)
    return int(size.positions / SEGMENT_ROWS + pieces) + SEGMENT_TAIL


def _postings(config: ModelConfig, size: Size, width: int) -> float:
    index = (_native_index if size.native or size.triton else _index)(config, size)
    if size.triton:
        # Positions once more, and of every segment its list, its start and its length.
        index += (size.positions + SEGMENT_TAIL) * 4 + segments(size) * 12
    return index + _rounded(size.distinct) * config.hidden_size * width


def _longest(config: ModelConfig) -> int:
    """The kernel's bounds of pair lengths: 16 lanes for each pair and block of heads."""
    blocks = config.num_heads // heads_of_block(config.num_heads)
    return blocks * config.rope.dim // 2 * LANES * 4


def pair_tables(config: ModelConfig, size: Size, width: int) -> int:
    """What layout ``pairs`` adds to ``postings``: made layer by layer, for the first token."""
    rows = _rounded(size.distinct) * config.rope.dim * config.num_kv_heads * width
    return config.num_layers * (rows + (_longest(config) if size.native else 0))


def _pairs(config: ModelConfig, size: Size, width: int) -> float:
    return _postings(config, size, width) + pair_tables(config, size, width)


def _tables(config: ModelConfig, size: Size, width: int) -> float:
    rows = _rounded(size.distinct) * kv_bytes_per_position(config, width)
    return _index(config, size) + rows


def _cached(config: ModelConfig, size: Size, width: int) -> float:
    blocks = -(-size.positions // (2 * _STEP)) * 2 * _STEP
    return blocks * kv_bytes_per_position(config, width)


LAYOUT_BYTES: dict[str, Callable[[ModelConfig, Size, int], float]] = {
    "ids": lambda config, size, width: 0,
    "states": _states,
    "postings": _postings,
    "pairs": _pairs,
    "tables": _tables,
    "cached": _cached,
}
