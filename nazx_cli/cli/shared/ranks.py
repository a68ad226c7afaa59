"""A command that several processes run together: the first one talks, the others follow it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from nazx_cli.cli.shared.options import count_option, option
from nazx_cli.context.ranks.sharing import BLOCK, Share
from nazx_cli.errors import UsageError
from nazx_cli.ranks import rank, world_size

if TYPE_CHECKING:
    from nazx_cli.ranks import Group

_HINT = "look at what it said, and start all again"


@dataclass(frozen=True)
class SharingOptions:
    """How several processes have a model together (``nazx help ranks``)."""

    block: Annotated[int, count_option("--block", "Tokens of a block of a long prompt.")] = BLOCK
    split_weights: Annotated[
        bool, option("--split-weights", "Each holds a part of the weights.")
    ] = False

    def share(self, ranks: int = 1) -> Share:
        """The same of so many processes."""
        return Share(ranks, self.block, self.split_weights)


def over_ranks(body: Callable[[Group | None], None], device: str) -> None:
    """Run ``body``, given the processes that torchrun has started, in the first of them; None where
    this one is alone. The others load and compute on ``device`` what it tells them, and say nothing
    but what goes wrong; Ctrl-C is for the first one to heed."""
    if world_size() == 1:
        body(None)
        return
    from nazx_cli.ranks import Group, joined

    with joined(_HINT) as (rank, size):
        group = Group(rank, size)
        if group.leads:
            with group.leading():
                body(group)
            return
        from nazx_cli.engine.following import follow

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        follow(group, device)


def refuse_ranks(command: str) -> None:
    """End where several processes were started for a command that is one: in all of them, at once,
    and in a line of the first one."""
    if (size := world_size()) == 1:
        return
    if rank() > 0:
        raise typer.Exit(UsageError.exit_code)
    told = f"nazx {command} is one process, and {size} were started"
    raise UsageError(told, f"run it without torchrun: nazx {command}")
