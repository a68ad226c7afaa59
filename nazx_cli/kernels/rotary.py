"""Rotary position embedding: frequencies of every supported type, phases, tables of them, rotation.

Half-split pairing as in GPT-NeoX and Llama: dimension f of a head is paired with f + F, where
2F dimensions are rotated. Sources: RoFormer (arXiv 2104.09864); linear interpolation (arXiv
2306.15595); dynamic NTK; YaRN (arXiv 2309.00071); LongRoPE (arXiv 2402.13753); the Llama 3.1
scheme.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nazx_cli.families.rope import RopeConfig
from nazx_cli.kernels import PHASE_BLOCK, PHASE_SPARE, PHASE_STEP

_SHORT = 256  # positions that cost less by themselves than by way of tables


class Rotary:
    """Angles of one model. All trigonometry is done in float64: a float32 angle is off by
    0.06 rad at position 1,000,000."""

    def __init__(self, config: RopeConfig) -> None:
        self.config = config
        self.dim = config.dim
        self.half = config.dim // 2
        self.scaling = _attention_scaling(config)

    def frequencies(self, length: int) -> Tensor:
        """(F,) float64 angle per position for a sequence of ``length`` tokens."""
        return _frequencies(self.config, length)

    def same_frequencies(self, length: int, other: int) -> bool:
        """Whether sequences of these two lengths share their phases."""
        limit = self.config.original_positions
        if self.config.kind == "longrope":
            return (length > limit) == (other > limit)
        return self.config.kind != "dynamic" or max(length, limit) == max(other, limit)

    def phases(self, start: int, stop: int, length: int, device: torch.device | str) -> Tensor:
        """(stop - start, 2F) float32: cosines then sines of positions start..stop-1, times the
        attention scaling of the RoPE type.

        Built by angle addition from one table of blocks and one of offsets, so that N
        positions cost N multiplications and N / 1024 + 1024 cosines. A short span, as every new
        token asks for, is computed as it stands.
        """
        if stop - start < _SHORT:
            return self.at(torch.arange(start, stop), length).to(device)
        freq = self.frequencies(length)
        first = start - start % PHASE_BLOCK
        blocks = torch.arange(first, max(stop, first + 1), PHASE_BLOCK, dtype=torch.float64)
        outer = blocks[:, None] * freq  # (B, F)
        inner = torch.arange(PHASE_BLOCK, dtype=torch.float64)[:, None] * freq
        co, so = (t.float().to(device)[:, None] for t in (outer.cos(), outer.sin()))
        ci, si = (t.float().to(device) * self.scaling for t in (inner.cos(), inner.sin()))
        table = torch.empty(len(blocks), PHASE_BLOCK, 2 * self.half, device=device)
        torch.mul(co, ci, out=table[..., : self.half]).sub_(so * si)
        torch.mul(so, ci, out=table[..., self.half :]).add_(co * si)
        return table.view(-1, 2 * self.half)[start - first : stop - first]

    def at(self, positions: Tensor, length: int) -> Tensor:
        """(T, 2F) float32 phases of arbitrary ``positions`` (T,)."""
        angles = positions.cpu().double()[:, None] * self.frequencies(length)
        table = torch.cat((angles.cos(), angles.sin()), -1) * self.scaling
        return table.float().to(positions.device)


class PhaseTables:
    """Phases of all positions as two small tables: cos and sin of a sum from those of its parts.

    outer (B, 2F) of positions 0, 1024, 2048, ...; inner (1024, 2F) of 0..1023, times the attention
    scaling of the RoPE type. Float32, made in float64; numbers behind each of them may be read.
    """

    def __init__(self, outer: Tensor, inner: Tensor) -> None:
        self.outer, self.inner = outer, inner
        self._length = 0  # of the sequence that they were made for

    @classmethod
    def empty(cls, rotary: Rotary, device: torch.device) -> PhaseTables:
        """Tables of no positions."""
        none = torch.empty(0, 2 * rotary.half, device=device)
        return cls(none, none)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(table.untyped_storage().nbytes() for table in (self.outer, self.inner))

    def sync(self, rotary: Rotary, count: int, length: int) -> None:
        """Cover positions 0..count-1 of a sequence of ``length``."""
        covered = len(self.outer) * PHASE_BLOCK
        if count <= covered and rotary.same_frequencies(self._length, length):
            return
        top = -(-count // PHASE_STEP) * PHASE_STEP
        device = self.outer.device
        inner = rotary.at(torch.arange(PHASE_BLOCK), length)
        outer = rotary.at(torch.arange(0, top, PHASE_BLOCK), length) / rotary.scaling
        self.inner, self.outer = (_with_spare(table.to(device)) for table in (inner, outer))
        self._length = length


class Rotation:
    """The rotation of T positions, made once and used by every layer.

    Phases (T, 2F) float32 hold cosines, then sines. Products are in ``dtype``.
    """

    def __init__(self, phases: Tensor, dtype: torch.dtype) -> None:
        self._half = phases.shape[-1] // 2
        table = phases[:, None].to(dtype)
        cos, sin = table[..., : self._half], table[..., self._half :]
        self._cos = torch.cat((cos, cos), -1)  # (T, 1, 2F)
        self._sin = torch.cat((-sin, sin), -1)

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate the first 2F dimensions of x (T, heads, D); the result has x's type.

        For each pair (a, b) of dimensions f and f + F: (a cos - b sin, b cos + a sin).
        """
        width = 2 * self._half
        if not width:
            return x
        part = x[..., :width]
        swapped = part.roll(self._half, -1)
        turned = torch.addcmul(part * self._cos, swapped, self._sin)
        return turned if width == x.shape[-1] else torch.cat((turned, x[..., width:]), -1)


def _with_spare(table: Tensor) -> Tensor:
    """The table with room behind it that may be read."""
    room = torch.nn.functional.pad(table.flatten(), (0, PHASE_SPARE))
    return room[: table.numel()].view(table.shape)


def _frequencies(config: RopeConfig, length: int) -> Tensor:
    exponents = torch.arange(0, config.dim, 2, dtype=torch.float64) / max(config.dim, 1)
    if config.kind == "dynamic" and config.dim > 2:
        limit = config.original_positions
        stretch = config.factor * max(length, limit) / limit - (config.factor - 1)
        theta = config.theta * stretch ** (config.dim / (config.dim - 2))
        return torch.pow(theta, -exponents)
    freq = torch.pow(config.theta, -exponents)
    if config.kind == "linear":
        return freq / config.factor
    if config.kind == "yarn":
        return _yarn(config, freq)
    if config.kind == "llama3":
        return _llama3(config, freq)
    if config.kind == "longrope":
        factors = config.long if length > config.original_positions else config.short
        return freq / torch.tensor(factors, dtype=torch.float64)
    return freq


def _yarn(config: RopeConfig, freq: Tensor) -> Tensor:
    """Interpolate slow dimensions, keep fast ones, blend between (YaRN, section 3.2)."""

    def dimension(turns: float) -> float:
        ratio = config.original_positions / (turns * 2 * math.pi)
        return config.dim * math.log(ratio) / (2 * math.log(config.theta))

    low, high = dimension(config.beta_fast), dimension(config.beta_slow)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, config.dim - 1)
    width = high - low or 0.001
    ramp = ((torch.arange(len(freq), dtype=torch.float64) - low) / width).clamp(0, 1)
    return freq / config.factor * ramp + freq * (1 - ramp)


def _llama3(config: RopeConfig, freq: Tensor) -> Tensor:
    """Divide long wavelengths by the factor, keep short ones, blend smoothly between."""
    turns = config.original_positions * freq / (2 * math.pi)  # rotations over the old context
    span = config.high_freq_factor - config.low_freq_factor
    smooth = ((turns - config.low_freq_factor) / (span or 1e-9)).clamp(0, 1)
    return freq * (smooth + (1 - smooth) / config.factor)


def _attention_scaling(config: RopeConfig) -> float:
    """The factor on cosines and sines of YaRN and of longrope; 1 for every other type."""
    if config.kind not in ("yarn", "longrope"):
        return 1.0
    if config.attention_factor is not None:
        return config.attention_factor
    if config.kind == "longrope":
        stretch = math.log(config.factor) / math.log(max(config.original_positions, 2))
        return math.sqrt(1.0 + stretch)

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(config.factor) + 1.0 if config.factor > 1 else 1.0

    if config.mscale and config.mscale_all_dim:
        return scale(config.mscale) / scale(config.mscale_all_dim)
    return scale(1.0)
