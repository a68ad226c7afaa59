"""What a context costs in bytes, layout by layout: the formulas that allocation follows.

No torch here, so that an estimate needs no model. N positions, U distinct tokens, or cells; C
features, L layers, 2F rotated dimensions of a head, ``width`` bytes per number of the model's type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from nazx_cli.config import ModelConfig
from nazx_cli.context.ranks.sharing import ALONE, Share
from nazx_cli.kernels import (
    LANES,
    PHASE_BLOCK,
    PHASE_SPARE,
    PHASE_STEP,
    ROW_STEP,
    SEGMENT_ROWS,
    SEGMENT_TAIL,
    SPARE_POSITIONS,
    KernelName,
    heads_of_block,
)

LIVE_SLACK = 512
"""Positions that a live cache keeps beyond its window."""
FAR_STATES = 8
"""States of texts that a far memory keeps at most, where it reads texts."""
CACHED_BLOCK = 2 * ROW_STEP
"""Positions of a block of layout ``cached``; its last block is the only spare room."""
GRAMS_BLOCK = 4_096
"""Positions that layout ``grams`` goes through at a time."""
STATES_BLOCK = 4_096
"""States that ``postings`` and ``pairs`` make at a time."""
_TAIL_IDS = 1024 * 4  # the buffer of context.context
_PIECES = 2.6  # pieces per distinct token of a Zipf-distributed text, in kernels.pytorch
_SEGMENTS = 1.2  # and segments of kernels.triton, beside those that are full


@dataclass(frozen=True)
class Size:
    """A context's size: ``positions`` in all and ``distinct`` tokens among them; ``live`` is how
    many run through the layers of a windowed or full model (None: as many as its window takes, or
    all). Where initial states see several tokens, ``distinct`` counts cells and ``vocabulary``
    tokens.

    ``kernel`` is what holds the index of layouts over posting lists: ``native`` takes less than
    ``torch``; ``triton`` holds its lists twice, for edits, and cut into segments on the device.
    ``whole`` is how long the context is of which this is the first rank's share, ``by`` how it is
    shared: it has all ids, and ``live`` are those of all ranks.
    """

    positions: int
    distinct: int
    live: int | None = None
    kernel: KernelName = "torch"
    vocabulary: int | None = None
    whole: int | None = None
    by: Share = ALONE

    def share(self, by: Share) -> Size:
        """What the first of several processes holds that have the context together; a stretch of
        it may have as many distinct tokens as all of it."""
        if by.ranks == 1:
            return self
        own = -(-self.positions // by.ranks)
        known = None if self.vocabulary is None else min(self.vocabulary, own)
        distinct = min(self.distinct, own)
        return replace(
            self, positions=own, distinct=distinct, vocabulary=known, whole=self.positions, by=by
        )

    @property
    def distinct_tokens(self) -> int:
        """Distinct tokens, whatever ``distinct`` counts."""
        return self.distinct if self.vocabulary is None else self.vocabulary


def context_bytes(config: ModelConfig, layout: str, size: Size, width: int) -> int:
    """Bytes held for a context of ``size`` in ``layout``, ids included; ``width`` is the size
    of one number of the model's type (4 for float32, 2 for bfloat16)."""
    held = _live_cache if config.attention.kind != "inattention" else LAYOUT_BYTES[layout]
    return (size.whole or size.positions) * 4 + _TAIL_IDS + int(held(config, size, width))


def live_positions(config: ModelConfig, size: Size) -> int:
    """Positions that run through the layers of a windowed or full model, whichever process holds
    them."""
    if size.live is not None:
        return size.live
    attention = config.attention
    if attention.kind == "full":
        return size.whole or size.positions
    return attention.local_window + attention.sink_tokens


def far_bytes(config: ModelConfig, width: int) -> int:
    """What the far memory holds for all contexts beside its weights: keys of the vocabulary, or
    states of texts that it has read."""
    attention = config.attention
    parts = attention.far_window + (attention.far_around > 0)
    keys = parts * attention.far_rank * config.vocab_size * width
    return keys + FAR_STATES * far_state_bytes(config)


def far_state_bytes(config: ModelConfig) -> int:
    """What reading a text leaves in a far memory that reads, whatever its length."""
    if not config.attention.far_segment:
        return 0
    d = config.head_dim
    return config.num_layers * config.num_kv_heads * d * (d + 1) * 4


def kv_bytes_per_position(config: ModelConfig, width: int) -> int:
    """Keys and values of all layers for one position of an ordinary dense cache."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * width


def _live_cache(config: ModelConfig, size: Size, width: int) -> float:
    """Keys and values that ``context.live_cache`` allocates, and the ids they belong to."""
    live, attention = live_positions(config, size), config.attention
    own = live
    if (stretches := size.by.stretches) > 1:  # whole blocks, and what asks
        own = min(live, -(-live // stretches) + size.by.block)
    if attention.kind == "full" or stretches > 1:
        capacity = _rounded(own + own // 4)
    else:
        limit = attention.local_window + attention.sink_tokens + LIVE_SLACK
        capacity = min(_rounded(own), limit)
    held = capacity * kv_bytes_per_position(config, width) // size.by.parts + live * 4
    return held + far_state_bytes(config)


def _rounded(rows: int) -> int:
    return -(-rows // ROW_STEP) * ROW_STEP


def _states(config: ModelConfig, size: Size, width: int) -> float:
    rows = _rounded(size.positions)
    return rows * (config.hidden_size * width + config.rope.dim * 4)


def _index(config: ModelConfig, size: Size) -> float:
    """What the kernel's index takes, the table of slots included: by id, or sorted cells."""
    slots = (config.vocab_size + size.distinct) * 4
    if config.attention.initial_window > 1:
        slots = size.distinct * 12
    if size.kernel == "torch":  # phases of every position, slots of every piece
        pieces = min(size.positions, _PIECES * size.distinct) * 4
        return size.positions * config.rope.dim * 4 + pieces + slots
    # Positions, list offsets, the two phase tables.
    lists = (size.positions + SPARE_POSITIONS) * 4 + (size.distinct + 1) * 8
    phases = _phases(config, size)
    if size.kernel == "triton":
        # Positions once more, and of every segment its list, its start and its length.
        lists += (size.positions + SEGMENT_TAIL) * 4 + segments(size) * 12
    return lists + phases + slots


def _phases(config: ModelConfig, size: Size) -> int:
    """The two tables that phases are added up from."""
    blocks = -(-size.positions // PHASE_STEP) * (PHASE_STEP // PHASE_BLOCK)
    return ((blocks + PHASE_BLOCK) * config.rope.dim + 2 * PHASE_SPARE) * 4


def segments(size: Size) -> int:
    """About how many segments the Triton kernel's lists are cut into, its tail included."""
    pieces = min(size.positions, _SEGMENTS * size.distinct)
    return int(size.positions / SEGMENT_ROWS + pieces) + SEGMENT_TAIL


def _longest(config: ModelConfig, size: Size) -> int:
    """The compiled kernel's bounds of pair lengths in all layers: 16 lanes for each pair and
    block of heads."""
    if size.kernel != "native":
        return 0
    blocks = config.num_heads // heads_of_block(config.num_heads)
    return config.num_layers * blocks * config.rope.dim // 2 * LANES * 4


def _postings(config: ModelConfig, size: Size, width: int) -> float:
    return _index(config, size) + _rounded(size.distinct) * config.hidden_size * width


def pair_tables(config: ModelConfig, size: Size, width: int) -> int:
    """What layout ``pairs`` adds to ``postings``: made layer by layer, for the first token."""
    rows = _rounded(size.distinct) * config.rope.dim * config.num_kv_heads * width
    return config.num_layers * rows + _longest(config, size)


def _pairs(config: ModelConfig, size: Size, width: int) -> float:
    return _postings(config, size, width) + pair_tables(config, size, width)


def _tables(config: ModelConfig, size: Size, width: int) -> float:
    rows = _rounded(size.distinct) * kv_bytes_per_position(config, width)
    return _index(config, size) + rows + _longest(config, size)


def _grams(config: ModelConfig, size: Size, width: int) -> float:
    window, tokens = config.attention.initial_window, size.distinct_tokens
    own = size.positions * 8 + (config.vocab_size + tokens) * 4  # slots and scales, and slots by id
    rows = _rounded(tokens) * window * config.hidden_size * width
    if size.kernel != "native":
        return own + rows
    pairs = _rounded(tokens * window) * config.rope.dim * config.num_kv_heads * width
    return own + rows + config.num_layers * pairs + _phases(config, size)


def _cached(config: ModelConfig, size: Size, width: int) -> float:
    blocks = -(-size.positions // CACHED_BLOCK)
    return blocks * CACHED_BLOCK * kv_bytes_per_position(config, width)


LAYOUT_BYTES: dict[str, Callable[[ModelConfig, Size, int], float]] = {
    "ids": lambda config, size, width: 0,
    "states": _states,
    "postings": _postings,
    "pairs": _pairs,
    "tables": _tables,
    "grams": _grams,
    "cached": _cached,
}
