"""The contract of a far memory: how a windowed model uses tokens that its window does not reach.

A memory may have a part at the output, in the layers, or in both. What it needs of a far text is
the token ids, which the context holds anyway, or a state of constant size that reading the text
leaves: ``states`` then says which texts were read, and every edit follows from that.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

from torch import Tensor, nn

from nazx_cli.config import ModelConfig
from nazx_cli.model.far.states import FarStates
from nazx_cli.model.layers import Embedding, grams_of

Beside = Callable[[int, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(layer, a (T, C), qk (T, heads + kv_heads, D), v (T, kv_heads, D), o (n, heads * D)) -> what the
last n of the T positions take (n, heads * D): a, qk and v are what attention was given, not
rotated, and o is what came of it."""


class Reading(Protocol):
    """A ``Beside`` for one segment of far text; ``after`` is the state that it leaves."""

    def __call__(self, layer: int, a: Tensor, qk: Tensor, v: Tensor, attended: Tensor) -> Tensor:
        """See ``Beside``."""

    @property
    def after(self) -> Tensor: ...


class FarMemory(nn.Module, ABC):
    """What a windowed model makes of the tokens before its window.

    A kind is trained beside a model whose weights stay as they are, and may be taken out again.
    ``states`` are those of far texts that were read; None: this kind reads none, and looks ids up.
    Whatever a kind does not define leaves the model as it is.
    """

    name: ClassVar[str]
    states: FarStates | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def window(self) -> int:
        """How many of a position's last tokens ``mix`` is told."""
        return 1

    def grams(self, ids: Tensor) -> Tensor:
        """(T, window) int64 of ids (T,): the ``recent`` of each position."""
        return grams_of(ids, self.window)

    def prepare(self, embed: Embedding) -> None:
        """Derive what is the same for all contexts from the embeddings of the model."""

    @property
    def nbytes(self) -> int:
        """Bytes held for all contexts beside the weights."""
        return 0 if self.states is None else self.states.nbytes

    def mix(self, logits: Tensor, states: Tensor, recent: Tensor, far: Tensor) -> Tensor:
        """Logits (n, V) float32 of the next tokens, from those that the model gives.

        logits  (n, V) float32
        states  (n, C) final states, normalized, that they were made of
        recent  (n, w) ids of each position's last tokens, its own first; -1 where there is none
        far     (N,) ids of the tokens before the window, in their order; N may be 0
        """
        return logits

    def take(self, states: Mapping[str, Tensor]) -> None:
        """Hold states of far texts that were read before, by their names; what cannot be one is
        left out."""

    def beside(self, state: Tensor | None) -> Beside | None:
        """Its part in the layers of a model that has read a far text to ``state`` (None: nothing);
        None where it has none."""
        return None

    def reading(self, state: Tensor | None) -> Reading:
        """How the next segment of a far text is run that was read to ``state``."""
        raise NotImplementedError(f"{self.name} reads no far text")
