"""Several processes that train one model: each runs its share of a step, gradients are added up.

They are started by ``torchrun``, which tells each its number in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from nazx_cli.errors import NazxError, first_line

_PATIENCE = timedelta(minutes=10)  # for a rank that holds out a check or writes a state


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many."""

    rank: int = 0
    size: int = 1

    @classmethod
    @contextmanager
    def joined(cls) -> Iterator[Ranks]:
        """The group that ``torchrun`` began, left at the end; alone where there is none."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            yield ALONE
            return
        with _told():
            dist.init_process_group("gloo", timeout=_PATIENCE)
        try:
            with _told():
                yield cls(dist.get_rank(), size)
        finally:
            dist.destroy_process_group()

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


@contextmanager
def _told() -> Iterator[None]:
    """What a broken connection means, in a line."""
    try:
        yield
    except RuntimeError as error:  # all of torch.distributed's are such
        if not _is_connection(error):
            raise
        raise NazxError(
            f"another process of this training ended: {first_line(error)}",
            "look at what it said, and go on with --resume",
        ) from None


def _is_connection(error: Exception) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("connection", "gloo", "timed out", "peer"))
