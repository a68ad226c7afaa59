"""The contract of a lesson: how a far memory of one kind is taught."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from nazx_cli.config import with_memory
from nazx_cli.model.far import FarMemory
from nazx_cli.training.far.settings import FarSettings
from nazx_cli.training.far.texts import Piece
from nazx_cli.training.trainer import Engine

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel


class Lesson(ABC):
    """What ``settings`` ask for, over the texts of a folder that hold what ``kept`` gave.

    ``learnt`` is the one of its tensors that has an entry for each position to learn from.
    ``config`` is that of the model with the memory; ``paces`` as for the trainer.
    """

    learnt: ClassVar[str]
    engine: Engine[Piece]
    train: Sequence[Piece]
    held: Sequence[Piece]
    paces: Sequence[tuple[nn.Parameter, float]] = ()

    def __init__(self, settings: FarSettings, lm: LanguageModel, folder: Path) -> None:
        self.config = with_memory(lm.config, settings.described())

    @staticmethod
    @abstractmethod
    def kept(
        settings: FarSettings, lm: LanguageModel, ids: Tensor, number: int
    ) -> dict[str, Tensor]:
        """What is kept of a text of ids (N,) to learn from; ``number`` is any, always the same for
        the same text."""

    @abstractmethod
    def alone(self) -> float:
        """The held-out loss in nats of the model without a memory."""

    @abstractmethod
    def made(self) -> FarMemory:
        """The memory as it serves."""
