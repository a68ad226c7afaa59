"""The contract of an attention kind: over whole sequences, and for the next token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.context.context import Context, Memory
from nazx_cli.errors import NazxError
from nazx_cli.kernels import KernelName, choose_kernel
from nazx_cli.model.decoder import Decoder
from nazx_cli.ranks import Group


class Followed(Protocol):
    """What another rank than the first holds of a context."""

    @property
    def nbytes(self) -> int: ...


class AttentionKind(ABC):
    """How the positions of one decoder attend.

    ``layouts`` names what ``new_memory`` can build, the default first. ``group`` are the processes
    that hold contexts together; None: this one alone does.
    """

    name: ClassVar[str]
    layouts: ClassVar[tuple[str, ...]]

    def __init__(
        self, decoder: Decoder, kernel: KernelName | None = None, group: Group | None = None
    ) -> None:
        self.decoder = decoder
        self.group = group
        self._kernel = kernel

    @property
    def reads_resident(self) -> bool:
        """Whether resident tokens have a part in the logits."""
        return False

    @property
    def kernel(self) -> KernelName:
        """What computes attention over posting lists; chosen when first asked for."""
        if self._kernel is None:
            d = self.decoder
            self._kernel = choose_kernel(d.config, d.device, d.dtype)
        return self._kernel

    @classmethod
    def layouts_for(cls, config: ModelConfig) -> tuple[str, ...]:
        """``layouts`` for a model of ``config``."""
        return cls.layouts

    @abstractmethod
    def new_memory(self, layout: str) -> Memory:
        """What a context of this kind derives from its ids."""

    @abstractmethod
    def sequence(self, ids: Tensor) -> Tensor:
        """Final states (T, C) of every position of ids (T,); differentiable."""

    def read(self, context: Context) -> Iterator[tuple[int, int]]:
        """Read what ``context`` holds resident and has to be read before it can be attended to;
        yields how many tokens are read, and of how many, before each piece. Logits read it anyway,
        and what is stopped goes on where it was."""
        yield from ()

    def readings(self, ids: Tensor) -> Mapping[str, Tensor]:
        """What ``read`` has left of a context in which ids (N,) are resident, by names that no
        others have."""
        return {}

    @abstractmethod
    def run(self, context: Context, drafts: Sequence[int]) -> Tensor:
        """What ``logits_ahead`` gives, of a ``context`` that is not empty."""

    def follow(self, numbers: Sequence[int], contexts: dict[int, Followed], group: Group) -> None:
        """Another rank's part of ``run``, told of by a message of these ``numbers``; ``contexts``
        are what it holds."""
        raise AssertionError(f"{self.name} attention has no other ranks")

    def logits(self, ids: Tensor, before: Tensor | None = None) -> Tensor:
        """(T, V) float32 logits after every position of ids (T,), with ``before`` (N,) resident
        before them."""
        if not len(ids):
            raise NazxError("there are no tokens to run the model on", "give at least one")
        every = ids if before is None else torch.cat((before, ids))
        h = self.sequence(every.to(self.decoder.device, torch.int64))
        return self.decoder.logits(h[len(every) - len(ids) :])

    @property
    def runs_ahead(self) -> bool:
        """Whether ``logits_ahead`` may run drafts here; where it never does, none are needed."""
        return False

    def logits_ahead(self, context: Context, drafts: Sequence[int]) -> Tensor:
        """(1 + n, V) float32 logits of the token after the last one in ``context``, then those of
        the token after each of the first n of ``drafts``, were they to follow.

        n is how many can be run together for less than one after another takes, and give the same
        logits, bit for bit, as if they were appended one by one; often it is 0. ``context`` stays
        as it is.
        """
        if not len(context):
            raise NazxError("the context is empty", "append at least one token first")
        with self.decoder.without_gradients():
            return self.run(context, drafts)
