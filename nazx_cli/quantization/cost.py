"""What quantized weights take, as formulas; needs neither torch nor bitsandbytes.

Quantized are the linear layers of the blocks. Embeddings, output head, norms and biases stay in
the compute type, as users of bitsandbytes know it.
"""

from __future__ import annotations

from nazx_cli.errors import UsageError

KINDS = ("int8", "nf4")
BLOCK = 64
"""Weights that share one scale in nf4."""

PIECE = 1 << 20
"""Weights that are dequantized at a time: the float workspace of a product."""

SMALL_PIECE = 1 << 18
"""Weights, or activations, that are quantized at a time: malloc keeps so much at hand."""


def check_kind(kind: str) -> str:
    """``kind`` if it is one that there is, else ``UsageError``."""
    if kind not in KINDS:
        raise UsageError(f"unknown quantization {kind!r}", f"choose {' or '.join(KINDS)}")
    return kind


def linear_bytes(out_features: int, in_features: int, kind: str) -> int:
    """Bytes of one quantized matrix with its scales, the bias not counted.

    int8: a byte for each weight and a float32 scale for each row. nf4: four bits for each
    weight and a float32 scale for each block of 64 in row-major order; the last block may be
    shorter. The table of the 16 nf4 values is shared: 64 bytes for a whole process. On a
    CPU without code of our own half of each of those scales may be kept.
    """
    weights = out_features * in_features
    if check_kind(kind) == "int8":
        return weights + 4 * out_features
    return -(-weights // 2) + 4 * -(-weights // BLOCK)
