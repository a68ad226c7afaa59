"""The block formats of GGUF as llama.cpp documents them, one element at a time: a slow reference
that shares nothing with the ``gguf`` package."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray


def _half(data: bytes, at: int) -> float:
    return float(struct.unpack_from("<e", data, at)[0])


def _q8_0(block: bytes) -> Iterator[float]:
    scale = _half(block, 0)
    for (number,) in struct.iter_unpack("<b", block[2:]):
        yield scale * number


def _q4_0(block: bytes) -> Iterator[float]:
    scale = _half(block, 0)
    yield from (scale * ((byte & 15) - 8) for byte in block[2:])
    yield from (scale * ((byte >> 4) - 8) for byte in block[2:])


def _q4_1(block: bytes) -> Iterator[float]:
    scale, least = _half(block, 0), _half(block, 2)
    yield from (scale * (byte & 15) + least for byte in block[4:])
    yield from (scale * (byte >> 4) + least for byte in block[4:])


def _fifth_bits(high: bytes, low: bytes) -> Iterator[int]:
    """Five-bit numbers: four bits in ``low``, the highest in the 32 bits of ``high``."""
    bits = int.from_bytes(high, "little")
    for at in range(32):
        nibble = low[at] & 15 if at < 16 else low[at - 16] >> 4
        yield nibble | (bits >> at & 1) << 4


def _q5_0(block: bytes) -> Iterator[float]:
    scale = _half(block, 0)
    yield from (scale * (number - 16) for number in _fifth_bits(block[2:6], block[6:]))


def _q5_1(block: bytes) -> Iterator[float]:
    scale, least = _half(block, 0), _half(block, 2)
    yield from (scale * number + least for number in _fifth_bits(block[4:8], block[8:]))


def _q4_k(block: bytes) -> Iterator[float]:
    """256 elements: 8 groups of 32, each with a scale and a minimum of 6 bits."""
    scale, least = np.float32(_half(block, 0)), np.float32(_half(block, 2))
    packed, codes = block[4:16], block[16:]
    for group in range(8):
        if group < 4:
            own, lowest = packed[group] & 63, packed[group + 4] & 63
        else:
            own = packed[group + 4] & 15 | packed[group - 4] >> 6 << 4
            lowest = packed[group + 4] >> 4 | packed[group] >> 6 << 4
        shift = 4 * (group % 2)
        for byte in codes[32 * (group // 2) : 32 * (group // 2) + 32]:
            code = np.float32(byte >> shift & 15)
            yield float(scale * np.float32(own) * code - least * np.float32(lowest))


def _q6_k(block: bytes) -> Iterator[float]:
    """256 elements of 6 bits: 4 low, 2 high; 16 groups of 16, each with a scale of 8 bits."""
    low, high, scales = block[:128], block[128:192], block[192:208]
    scale = np.float32(_half(block, 208))
    for at in range(256):
        half, within = divmod(at, 128)
        quarter, column = divmod(within, 32)
        nibble = low[64 * half + 32 * (quarter % 2) + column] >> 4 * (quarter // 2) & 15
        top = high[32 * half + column] >> 2 * quarter & 3
        own = struct.unpack_from("<b", scales, at // 16)[0]
        yield float(scale * np.float32(own) * np.float32((nibble | top << 4) - 32))


FORMATS: dict[Kind, tuple[int, int, Callable[[bytes], Iterator[float]]]] = {
    Kind.Q8_0: (34, 32, _q8_0),
    Kind.Q4_0: (18, 32, _q4_0),
    Kind.Q4_1: (20, 32, _q4_1),
    Kind.Q5_0: (22, 32, _q5_0),
    Kind.Q5_1: (24, 32, _q5_1),
    Kind.Q4_K: (144, 256, _q4_k),
    Kind.Q6_K: (210, 256, _q6_k),
}
"""Of each format: bytes of a block, its elements, and how they are read."""

_HALVES = {Kind.Q4_K: (0, 2), Kind.Q6_K: (208,)}


def dequantized(raw: bytes, kind: Kind, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The elements of ``raw``."""
    size, _, read = FORMATS[kind]
    values = [value for at in range(0, len(raw), size) for value in read(raw[at : at + size])]
    return np.array(values, np.float32).reshape(shape)


def random_blocks(kind: Kind, rows: int, columns: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random but valid raw data (rows, bytes) of a K format: every code, small scales."""
    size, elements, _ = FORMATS[kind]
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (rows * columns // elements, size), np.uint8)
    for at in _HALVES[kind]:
        scales = random.normal(scale=1e-3, size=len(blocks)).astype("<f2")
        blocks[:, at : at + 2] = scales[:, None].view(np.uint8)
    return blocks.reshape(rows, -1)
