"""What is measured side by side: models that take in a prompt and go on from it greedily."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from nazx_cli.context.context import Context
from nazx_cli.context.layouts import LAYOUTS, TRITON
from nazx_cli.engine.language_model import LanguageModel


class Engine(Protocol):
    """A model with whatever cache it keeps. Only the cache of the latest prefill need be valid."""

    def prefill(self, ids: Tensor) -> tuple[Any, Tensor]:
        """Run ids (T,); the cache that they leave, and (V,) logits after the last."""

    def decode(self, cache: Any, token: int, count: int) -> list[int]:
        """``count`` greedy tokens after ``token``, which is not yet in ``cache``."""

    def cache_bytes(self, cache: Any) -> int:
        """Bytes that ``cache`` holds for the positions in it."""


@dataclass(frozen=True)
class Rival:
    """What users would otherwise run; without an ``engine`` where it cannot run here, and then
    ``note`` says why. ``precision`` is that of its weights."""

    name: str
    engine: Engine | None = None
    precision: str = ""
    note: str = ""


class Ours:
    """NazX as an ``Engine``."""

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm

    def prefill(self, ids: Tensor) -> tuple[Context, Tensor]:
        """A new context of ids (T,), and the logits after the last of them."""
        return prefilled(self.lm, ids)

    def decode(self, cache: Context, token: int, count: int) -> list[int]:
        """As ``greedy``."""
        return greedy(self.lm, cache, token, count)

    def cache_bytes(self, cache: Context) -> int:
        """Everything beyond the model's weights."""
        return cache.nbytes


def prefilled(lm: LanguageModel, ids: Tensor) -> tuple[Context, Tensor]:
    """A new context of ids (T,), and the logits after the last of them."""
    context = lm.new_context()
    context.append(ids)
    return context, lm.next_logits(context)


def greedy(lm: LanguageModel, context: Context, token: int, count: int) -> list[int]:
    """``count`` greedy tokens after ``token``, which is not yet in ``context``."""
    found = []
    for _ in range(count):
        context.append([token])
        token = int(lm.next_logits(context).argmax())
        found.append(token)
    return found


def kernel_of(lm: LanguageModel) -> str:
    """What computes attention over a layout: the ``compiled`` kernel, the ``triton`` one, or
    PyTorch (``portable``); nothing for models that have no layouts to choose from."""
    if lm.config.attention.kind != "inattention":
        return ""
    memory = lm.new_context().memory
    if isinstance(memory, tuple(TRITON.values())):
        return "triton"
    return "portable" if type(memory) is LAYOUTS[lm.layout] else "compiled"


def precision_of(lm: LanguageModel) -> str:
    """How the weights of the blocks are held."""
    return lm.quantization or lm.dtype
