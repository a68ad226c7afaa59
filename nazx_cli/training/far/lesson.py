"""The contract of a lesson: how a far memory of one kind is taught."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

from torch import Tensor, nn

from nazx_cli.config import with_far
from nazx_cli.model.far import FarMemory
from nazx_cli.training.far.settings import FarSettings
from nazx_cli.training.trainer import Engine, Item

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel


class FarItem(Item, Protocol):
    """A piece of a text, by the text's number; the memory is of the text ``other`` instead, if
    any."""

    @property
    def text(self) -> int: ...
    @property
    def other(self) -> int | None: ...


I = TypeVar("I", bound=FarItem)  # noqa: E741


class Lesson(ABC, Generic[I]):
    """What ``settings`` ask for, over the texts of a folder that hold what ``kept`` gave.

    ``learnt`` is the one of its tensors that has an entry for each position to learn from.
    ``config`` is that of the model with the memory; ``paces`` as for the trainer.
    """

    learnt: ClassVar[str]
    engine: Engine[I]
    train: Sequence[I]
    held: Sequence[I]
    paces: Sequence[tuple[nn.Parameter, float]] = ()

    def __init__(self, settings: FarSettings, lm: LanguageModel) -> None:
        attention = with_far(lm.config.attention, settings.described())
        self.config = replace(lm.config, attention=attention)

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
