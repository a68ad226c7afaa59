"""Several processes that train one model: each runs its share of a step, gradients are added up.

They are started by ``torchrun``, which tells each its number in the environment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from nazx_cli.ranks import joined, world_size

_HINT = "look at what it said, and go on with --resume"


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many."""

    rank: int = 0
    size: int = 1

    @classmethod
    @contextmanager
    def joined(cls) -> Iterator[Ranks]:
        """The group that ``torchrun`` began, left at the end; alone where there is none."""
        if world_size() == 1:
            yield ALONE
            return
        with joined(_HINT) as (rank, size):
            yield cls(rank, size)

    @property
    def is_first(self) -> bool:
        """Whether this one writes and tells."""
        return self.rank == 0

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Put the sum over all ranks in place of each gradient."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:  # no item of this rank's came by here
                parameter.grad = torch.zeros_like(parameter)
            held = parameter.grad.cpu()
            dist.all_reduce(held)
            parameter.grad.copy_(held)

    def sums(self, *values: float) -> tuple[float, ...]:
        """Sums over all ranks."""
        if self.size == 1:
            return values
        both = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(both)
        return tuple(both.tolist())

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


ALONE = Ranks()
