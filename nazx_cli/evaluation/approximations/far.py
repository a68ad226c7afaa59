"""Approximations of what a far memory of token ids attends to: thousands to millions of positions.

Its queries meet the keys of all far tokens, each as a vector, with an approximation in place of all
of them; the score against copying stays as it is. Keys are held for every position here, which the
memory itself never does: its bytes are those of ids, and an approximation's those of ids and of
what stands for keys. A value is the token that follows, so a mean of values is a distribution over
the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from nazx_cli.errors import UsageError
from nazx_cli.evaluation.approximations.base import Approximation, Sizes
from nazx_cli.model.decoder import Decoder
from nazx_cli.model.far import FarMemory
from nazx_cli.model.far.inattention import FarInAttention, summed

_ID = 4  # bytes of a token id
_TOGETHER = 8  # queries whose scores are held at a time


def far_memory(decoder: Decoder) -> FarInAttention:
    """The far memory of ``decoder``; ``UsageError`` where it has none whose keys are token ids."""
    if not isinstance(decoder.far, FarInAttention):
        raise UsageError(
            "with --before an approximation is of what a far memory of token ids attends to, and "
            "this model has none",
            "name one with --adapter, or leave --before out",
        )
    return decoder.far


def far_sizes(memory: FarInAttention, width: int) -> Sizes:
    """What is held of a far token, and of what stands for several."""
    parts, _, rank = memory.tables.shape
    return Sizes(_ID, parts * rank * width, memory.config.vocab_size * width, 1)


@contextmanager
def approximated(decoder: Decoder, way: Approximation) -> Iterator[None]:
    """The far memory of ``decoder`` attends by ``way`` meanwhile."""
    memory = far_memory(decoder)
    decoder.far = _Approximated(memory, way)
    try:
        yield
    finally:
        decoder.far = memory


class _Approximated(FarMemory):
    """``memory``, attending by ``way``."""

    def __init__(self, memory: FarInAttention, way: Approximation) -> None:
        super().__init__(memory.config)
        self._way = way
        self._memory = memory

    @property
    def window(self) -> int:
        return self._memory.window

    def mix(self, logits: Tensor, states: Tensor, recent: Tensor, far: Tensor) -> Tensor:
        own = logits.log_softmax(-1)
        if len(far) < 2:
            return own
        far = far.to(own.device)
        queries, refusals = self._memory.asked(states, recent, len(far))
        scored = self._way.over(keys_of(self._memory, far))
        mixed = []
        each = (own, queries.flatten(1), refusals)
        for some, q, refusal in zip(*(torch.split(x, _TOGETHER) for x in each), strict=True):
            weights = torch.cat((refusal[:, None], scored(q)), 1).log_softmax(-1)
            copied = torch.zeros_like(some).index_add_(1, far[1:].long(), weights[:, 1:].exp())
            mixed.append(torch.logaddexp(some + weights[:, :1], copied.log()))
        return torch.cat(mixed)


def keys_of(memory: FarInAttention, far: Tensor) -> Tensor:
    """(N - 1, D) float32: keys of far ids (N,), of all that something follows; D is the number of
    parts times the rank."""
    count, tables = len(far) - 1, memory.tables
    parts = [
        F.pad(tables[back][far[: max(0, count - back)].long()].float(), (0, 0, min(back, count), 0))
        for back in range(memory.taps)
    ]
    if memory.around:
        parts.append(summed(tables[-1][far.long()].float(), memory.around)[:count])
    return torch.cat(parts, 1)
