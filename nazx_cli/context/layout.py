"""The contract of a memory layout for InAttention: what is kept beside the ids, and how the
last position attends with it. Every layout gives the same logits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from nazx_cli.context.projections import Projections
from nazx_cli.context.tokens import TokenSequence


class Layout(ABC):
    """Derived state of one context. ``sync`` is called before each round of ``attend``."""

    name: ClassVar[str]

    def __init__(self, projections: Projections) -> None:
        self.projections = projections
        self.length = 0  # positions that the last sync saw

    def edited(self, tokens: TokenSequence, at: int, removed: int, added: int) -> None:
        """``removed`` positions from ``at`` on are about to go and ``added`` to come in their
        place: forget what was derived from those, and from all that now stand elsewhere."""
        self.forget(at)

    @abstractmethod
    def forget(self, at: int) -> None:
        """Drop, or mark as stale, everything derived from positions >= ``at``."""

    @abstractmethod
    def sync(self, tokens: TokenSequence) -> None:
        """Derive what is missing for ``tokens``."""

    @abstractmethod
    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Tensor:
        """The last position's attention in one layer.

        query: (heads, D), un-rotated; phases: (2F,), of the last position.
        Returns (heads, D) float32: the softmax-weighted values over positions 0..N-1 (design
        section 2).
        """

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of every tensor held; equal to ``context.cost`` up to its stated rounding."""
