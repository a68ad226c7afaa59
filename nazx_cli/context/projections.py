"""The contract by which a context attends without knowing the model that owns it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig


class RotaryTable(Protocol):
    """Phases of positions; see ``model.rotary.Rotary``."""

    half: int
    scaling: float

    def at(self, positions: Tensor, length: int) -> Tensor:
        """(T, 2F) float32 phases of positions (T,), times ``scaling``."""

    def same_frequencies(self, length: int, other: int) -> bool:
        """Whether sequences of these two lengths share their phases."""

    def phases(self, start: int, stop: int, length: int, device: torch.device | str) -> Tensor:
        """(stop - start, 2F) float32 cosines then sines."""


class Projections(Protocol):
    """Keys and values from initial states; see ``model.projections``."""

    @property
    def config(self) -> ModelConfig: ...
    @property
    def rotary(self) -> RotaryTable: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...

    def states(self, ids: Tensor) -> Tensor:
        """(n, C) standardized initial states of token ids (n,)."""

    def keys_values(self, layer: int, states: Tensor) -> tuple[Tensor, Tensor]:
        """Un-rotated keys and values, each (n, kv_heads, D)."""

    def absorb_keys(self, layer: int, probes: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (kv_heads, M, C) and constants (kv_heads, M) with r . k = vector . x + c."""

    def project_values(self, layer: int, mixed: Tensor) -> Tensor:
        """(heads, D) values of weighted sums of states (heads, C)."""
