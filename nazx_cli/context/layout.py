"""The contract of a memory layout for InAttention: what is kept beside the ids, and how the
last position attends with it. Every layout gives the same logits.

A layout knows the model that owns it by its ``Projections`` only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.kernels import KernelName
from nazx_cli.kernels.base import Attended, Tokens
from nazx_cli.kernels.rotary import Rotary


class Projections(Protocol):
    """Keys and values from initial states; see ``model.attention.inattention``."""

    @property
    def config(self) -> ModelConfig: ...
    @property
    def rotary(self) -> Rotary: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...

    def states(self, ids: Tensor) -> Tensor:
        """(n, C) standardized initial states of token ids, or of cells (n,)."""

    def parts(self, ids: Tensor) -> Tensor:
        """(n, w, C) what token ids (n,) give to a state at each distance, before the norm."""

    def keys_values(self, layer: int, states: Tensor) -> tuple[Tensor, Tensor]:
        """Un-rotated keys and values, each (n, kv_heads, D)."""

    def absorb_keys(self, layer: int, probes: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (kv_heads, M, C) and constants (kv_heads, M) with r . k = vector . x + c."""

    def rotary_keys(self, layer: int) -> tuple[Tensor, Tensor]:
        """The same of the 2F key components that RoPE turns, instead of probes."""

    def project_values(self, layer: int, mixed: Tensor) -> Tensor:
        """(heads, D) values of weighted sums of states (heads, C)."""


class Layout(ABC):
    """Derived state of one context. ``sync`` is called before each round of ``attend``.

    ``kernel`` is what attends: the given one only where there are posting lists.
    """

    name: ClassVar[str]
    kernel: KernelName = "torch"

    def __init__(self, projections: Projections, kernel: KernelName = "torch") -> None:
        self.projections = projections
        self.length = self.total = 0  # positions that the last sync saw, and of the whole context

    @abstractmethod
    def edited(self, at: int, removed: int, added: int) -> None:
        """``removed`` positions from ``at`` on are about to go and ``added`` to come in their
        place: forget what was derived from those, and from all that now stand elsewhere."""

    @abstractmethod
    def sync(self, tokens: Tokens) -> None:
        """Derive what is missing for ``tokens``: cells, where initial states see more than one."""

    @abstractmethod
    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Attended:
        """The last position's attention in one layer.

        query: (heads, D), un-rotated; phases: (2F,), of the last position, which stands behind
        position N-1 where these positions are a stretch of the context: it is by how far two
        positions are apart that RoPE turns their product.
        The values are (heads, D) float32: softmax-weighted over positions 0..N-1 (design
        section 2).
        """

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of every tensor held; equal to ``context.cost`` up to its stated rounding."""
