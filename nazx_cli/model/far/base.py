"""The contract of a far memory: how a windowed model uses tokens that its window does not reach."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from nazx_cli.config import ModelConfig
from nazx_cli.model.layers import Embedding, grams_of


class FarMemory(nn.Module, ABC):
    """What a windowed model makes of the tokens before its window.

    A kind is trained beside a model whose weights stay as they are, and may be taken out again.
    """

    name: ClassVar[str]

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @property
    @abstractmethod
    def window(self) -> int:
        """How many of a position's last tokens ``mix`` is told."""

    def grams(self, ids: Tensor) -> Tensor:
        """(T, window) int64 of ids (T,): the ``recent`` of each position."""
        return grams_of(ids, self.window)

    @abstractmethod
    def prepare(self, embed: Embedding) -> None:
        """Derive what is the same for all contexts from the embeddings of the model."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes held for all contexts beside the weights."""

    @abstractmethod
    def mix(self, logits: Tensor, states: Tensor, recent: Tensor, far: Tensor) -> Tensor:
        """Log-probabilities (n, V) float32 of the next tokens, from those that the model gives
        without the memory.

        logits  (n, V) float32, the model's own
        states  (n, C) final states, normalized, that they were made of
        recent  (n, w) ids of each position's last tokens, its own first; -1 where there is none
        far     (N,) ids of the tokens before the window, in their order; N may be 0
        """
