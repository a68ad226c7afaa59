"""What a model and a context take, from the configuration alone: no torch, no weights.

Three parts: weights; the context (``context.cost``, whose formulas allocation follows); and
workspace, what is needed for a moment while loading, indexing or computing. On a CPU a fourth is
the process itself: libraries, the tokenizer and the documents' text, measured before weights are
loaded, and the index of recall that is still to come. A limit, an estimate and the gauge's
reading of resident memory then are about the same bytes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from nazx_cli.checkpoint.recipes import Recipe, recipes
from nazx_cli.config import ModelConfig
from nazx_cli.context import cells, cost
from nazx_cli.context.cost import Size
from nazx_cli.kernels import LANES, KernelName
from nazx_cli.quantization.cost import linear_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PRECISIONS = ("float32", "bfloat16", "float16", "int8", "nf4")
"""Ways to hold weights, most precise first."""

_WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
_RUNTIME = 30_000_000  # measured: libraries' buffers, code loaded on first use, unreturned heap
_QUANTIZER = 185_000_000  # measured: bitsandbytes and what it imports, and its working memory
_TRITON = 75_000_000  # measured: Triton, which bitsandbytes imports where it is installed
_ANSWERING = 45_000_000  # measured: libraries first used by a chat, and code compiled for prompts
_INDEX = 40  # by its arrays: bytes of a token in the index of recall, while it is built
_INDEXED = 2  # by its arrays: of a token that lies on disk, words looked up included
_STORED = 2  # bytes of one number in a checkpoint file; published ones are 16-bit
_HEAPS = {1: (26.0, 0.486), 2: (4.56, 0.794), 3: (1.90, 0.921), 4: (1.265, 0.971)}


@dataclass(frozen=True)
class TextSize:
    """How long documents are: ``tokens`` in all and ``distinct`` ones, or cells, among them;
    ``vocabulary`` as in ``Size``. ``indexed`` of the tokens lie in an index on disk."""

    tokens: int = 0
    distinct: int = 0
    vocabulary: int | None = None
    indexed: int = 0

    @classmethod
    def of(cls, documents: Iterable[NDArray[np.int32]], config: ModelConfig) -> TextSize:
        """Counted in the token ids (n,) of each document as a model of ``config`` has them: a pass
        over them, nothing sorted but where it is cells that count."""
        import numpy as np

        texts = [ids for ids in documents if len(ids)]
        seen = np.zeros(1 + max((int(ids.max()) for ids in texts), default=-1), np.bool_)
        for ids in texts:
            seen[ids] = True
        tokens, vocabulary = sum(map(len, texts)), int(np.count_nonzero(seen))
        if config.attention.initial_window == 1:
            return cls(tokens, vocabulary)
        each = [cells.numbers(ids.astype(np.int64), config) for ids in texts]
        distinct = len(np.unique(np.concatenate(each))) if each else 0
        return cls(tokens, distinct, vocabulary)

    def as_context(self, kernel: KernelName = "torch") -> Size:
        """The size of a context of these documents."""
        return Size(self.tokens, self.distinct, None, kernel, self.vocabulary)


@dataclass(frozen=True)
class Estimate:
    """Bytes of one model and one context; ``dense`` is what an ordinary cache would take,
    ``process`` what a CPU holds beside them. ``host`` are the bytes of the weights that a GPU has
    no room for: they are in host memory, and not among ``weights``."""

    precision: str
    layout: str
    size: Size
    weights: int
    context: int
    dense: int
    workspace: int
    process: int = 0
    host: int = 0

    @property
    def total(self) -> int:
        """The peak: process, weights, context and workspace."""
        return self.process + self.weights + self.context + self.workspace


def distinct_tokens(positions: int, vocab_size: int) -> int:
    """Distinct tokens to expect among ``positions`` of English prose, by Heaps' law.

    U = 26 N^0.486, fitted to the SmolLM2 tokenizer on 230 novels strung together, 10,000 to
    1,000,000 tokens: within 9 % of the mean at 10,000, 30,000, 100,000, 300,000 and 1,000,000.
    """
    return _heaps(positions, 1, vocab_size)


def distinct_cells(positions: int, config: ModelConfig) -> int:
    """What a model of ``config`` holds one row of among ``positions`` of English prose: distinct
    tokens, or where initial states see more, cells.

    U = 4.56 N^0.794 for cells of 2 tokens, 1.90 N^0.921 of 3 and 1.265 N^0.971 of 4, fitted like
    ``distinct_tokens``: within 4 % of the mean from 10,000 to 1,000,000 tokens.
    """
    window = config.attention.initial_window
    return _heaps(positions, window, config.vocab_size**window)


def prose(positions: int, config: ModelConfig) -> TextSize:
    """The size of so much English prose, as a model of ``config`` has it."""
    tokens = distinct_tokens(positions, config.vocab_size)
    vocabulary = tokens if config.attention.initial_window > 1 else None
    return TextSize(positions, distinct_cells(positions, config), vocabulary)


def _heaps(positions: int, window: int, most: int) -> int:
    k, beta = _HEAPS[window]
    return min(positions, most, math.ceil(k * positions**beta)) if positions else 0


@cache
def weight_bytes(config: ModelConfig, precision: str, width: int = 2, parts: int = 1) -> int:
    """Bytes of all parameters, held as ``precision``; ``width`` is the size of a number in what
    int8 and nf4 leave as it is. Of matrices in ``parts`` one part of each."""
    return sum(
        _part_bytes(part, precision, width) // (parts if len(part.sources[0][1]) == 2 else 1)
        for part in recipes(config)
    )


def bytes_per_token(config: ModelConfig, precision: str, width: int = 2) -> int:
    """Bytes of the weights that writing one token reads, ``width`` as in ``weight_bytes``: all of
    them, but of an embedding that is not the output head as well no more than a row."""
    read = weight_bytes(config, precision, _WIDTH.get(precision, width))
    if config.tie_embeddings:
        return read
    return read - (config.vocab_size - 1) * config.hidden_size * _WIDTH.get(precision, width)


def estimate(
    config: ModelConfig,
    precision: str,
    layout: str,
    size: Size,
    quantized_width: int = 2,
    process: int = 0,
) -> Estimate:
    """The cost of ``config`` held as ``precision`` with a context of ``size`` in ``layout``.

    ``quantized_width`` is the size of a number of the arithmetic where weights are quantized:
    2 for bfloat16, 4 for float32.
    """
    width = _WIDTH.get(precision, quantized_width)
    parts = size.by.parts
    weights = weight_bytes(config, precision, width, parts) + cost.far_bytes(config, width)
    context = cost.context_bytes(config, layout, size, width)
    running = context + _running(config, layout, size, width)
    peak = max(weights + running, _loading(config, precision, width) // parts)
    return Estimate(
        precision,
        layout,
        size,
        weights,
        context,
        size.positions * cost.kv_bytes_per_position(config, width),
        peak - weights - context + _RUNTIME + (0 if precision in _WIDTH else _quantizer()),
        process,
    )


def layer_bytes(config: ModelConfig, precision: str, width: int) -> int:
    """Bytes of the weights of one layer; ``width`` as in ``weight_bytes``."""
    width = _WIDTH.get(precision, width)
    return sum(_part_bytes(part, precision, width) for part in recipes(config) if part.layer == 0)


def _quantizer() -> int:
    return _QUANTIZER + (_TRITON if find_spec("triton") else 0)


def process_bytes(held: int, documents: TextSize) -> int:
    """What a process on a CPU comes to beside model and context, from the bytes that it holds
    with its ``documents`` read and tokenized, but nothing loaded."""
    return held + _ANSWERING + index_bytes(documents.tokens, documents.indexed)


def index_bytes(tokens: int, indexed: int = 0) -> int:
    """What the index of recall takes of host memory for documents of so many tokens, ``indexed``
    of them on disk, at most."""
    return (tokens - indexed) * _INDEX + indexed * _INDEXED


def longest_context(config: ModelConfig, held: Estimate, limit: int, quantized_width: int) -> int:
    """The most positions whose total stays within ``limit`` bytes, of each of the processes that
    hold them together, where weights and context are held as in ``held``; 0 where none do.
    Distinct tokens grow by Heaps' law."""

    def fits(positions: int) -> bool:
        size = prose(positions, config).as_context(held.size.kernel).share(held.size.by)
        total = estimate(config, held.precision, held.layout, size, quantized_width).total
        return total <= limit

    return bisect_left(range(1, 1 << 31), True, key=lambda positions: not fits(positions))


def as_inattention(config: ModelConfig) -> ModelConfig:
    """The same shapes under InAttention, for asking what its layouts would cost."""
    return replace(config, attention=replace(config.attention, kind="inattention"))


def _numbers(part: Recipe) -> int:
    return sum(math.prod(shape) for _, shape in part.sources)


def _part_bytes(part: Recipe, precision: str, width: int) -> int:
    if precision not in _WIDTH and part.is_block_matrix:
        return linear_bytes(*part.matrix_shape, precision)
    return _numbers(part) * width


@cache
def _loading(config: ModelConfig, precision: str, width: int) -> int:
    """The peak while loading: what is held so far, and one parameter as it is read, joined and
    converted."""
    held = peak = 0
    for part in recipes(config):
        own = _part_bytes(part, precision, width)
        copies = 2 if part.arrange else 1
        peak = max(peak, held + own + copies * _numbers(part) * _STORED)
        held += own
    return peak


def _running(config: ModelConfig, layout: str, size: Size, width: int) -> int:
    """The largest transient of indexing, scoring or running positions through the layers."""
    logits = config.vocab_size * (width + 4) + config.hidden_size * 64
    logits += config.vocab_size * 4 * (2 * config.attention.far_window)  # scores of a far memory
    if config.attention.kind != "inattention":
        return logits + _reading(config, size, width)
    heads, turned = config.num_heads, config.rope.dim
    columns = heads * (1 + turned)
    n, u = size.positions, size.distinct
    if layout in ("postings", "pairs", "tables"):
        window = config.attention.initial_window
        copies = 1 + 3 * window if window > 1 else 1  # of a state: those that it is made of
        made = u if layout == "tables" else min(u, cost.STATES_BLOCK)
        rows = made * config.hidden_size * (copies * width + 4)
        if size.kernel != "torch":
            build = n * (4 + 8 + 8 + 8 + 4)
            score = u * heads * (turned * width * (layout == "postings") + 16)
            score += cost.segments(size) * heads * 16 if size.kernel == "triton" else 0
        else:
            build = n * (4 + 8 + 8 + 8 + turned * 4 * 2)
            score = u * columns * (width + 4) + 3 * u * heads * 4 + (8 << 20)
        return logits + max(build, rows, score)
    if layout == "grams":
        return logits + _scoring_grams(config, size, width)
    block = min(n, {"ids": 16_384, "states": 8_192, "cached": 512}[layout])
    rows = distinct_cells(block, config) if layout == "ids" else block
    by_row = columns * (width + 8) + config.hidden_size * (2 * width + 8)
    return logits + rows * by_row + block * (columns * 4 + turned * 16)


def _scoring_grams(config: ModelConfig, size: Size, width: int) -> int:
    """What ``context.grams`` needs for a moment: to derive a block of positions and to score."""
    heads, columns = config.num_heads, config.num_heads * (1 + config.rope.dim)
    rows = size.distinct_tokens * config.attention.initial_window
    block = min(size.positions, cost.GRAMS_BLOCK)
    made = block * config.attention.initial_window * config.hidden_size * (width + 12)
    if size.kernel == "native":
        score = size.positions * heads * 4 + rows * (heads * (2 * width + 12) + LANES * 4)
    else:
        score = rows * (columns * (width + 8) + heads * 12) + block * (columns * 12 + heads * 16)
    return max(size.positions * 20, made, score)


def _reading(config: ModelConfig, size: Size, width: int) -> int:
    """What running live tokens through the layers needs for a moment."""
    live, by = cost.live_positions(config, size), size.by
    if by.stretches == 1:
        return _activations(config, max(live, config.attention.far_segment), width)
    # A block, or what asks, which may be half as long again; and the anchor of other ranks.
    at_once = min(live, by.block + by.block // 2)
    scores = 2 * min(at_once, 256) * config.num_heads * -(-live // by.ranks) * 4
    held = min(live, by.block) * cost.kv_bytes_per_position(config, width)
    return _activations(config, at_once, width) + scores + held


def _activations(config: ModelConfig, count: int, width: int) -> int:
    """Of ``count`` positions in one layer: states, norms, projections, the feed-forward part."""
    c, kv = config.hidden_size, config.num_kv_heads * config.head_dim
    q = config.num_heads * config.head_dim
    attention = (3 * q + 4 * kv) * width
    feed = (3 if config.gated else 2) * config.intermediate_size * width
    return count * (c * (4 * width + 8) + max(attention, feed))
