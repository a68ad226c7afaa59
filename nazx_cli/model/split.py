"""A decoder whose matrices several processes hold in parts: torch's own tensor parallelism.

Query, key, value, gate and up are split by their rows, so that a process has whole heads; what
follows them by its columns, and the sum of all parts goes to every process; embedding and head by
tokens. The rows of fused matrices are in the order of the processes: each has its part of the
queries, then of the keys, then of the values. Norms are whole everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

from nazx_cli.model.decoder import Decoder

_BLOCK: dict[str, ParallelStyle] = {
    "qkv": ColwiseParallel(),
    "out": RowwiseParallel(),
    "mlp.up": ColwiseParallel(),
    "mlp.down": RowwiseParallel(),
}
_ENDS: dict[str, ParallelStyle] = {
    "embed": RowwiseParallel(input_layouts=Replicate()),
    "head": ColwiseParallel(output_layouts=Replicate()),
}


class Part(NamedTuple):
    """Along ``axis`` part ``at`` of ``parts`` equal ones; the last may be smaller."""

    axis: int
    at: int
    parts: int

    def of(self, shape: tuple[int, ...]) -> slice:
        """Where it lies along its axis in a tensor of this shape."""
        length = shape[self.axis]
        each = -(-length // self.parts)
        return slice(min(length, self.at * each), min(length, (self.at + 1) * each))


def split(decoder: Decoder, device: torch.device, ranks: int) -> None:
    """Make this process's part of a decoder on the meta device; all ``ranks`` do so at once."""
    mesh = init_device_mesh(device.type, (ranks,))
    for block in decoder.layers:
        parallelize_module(block, mesh, _BLOCK)
        block.heads //= ranks
        block.q_rows //= ranks
        block.kv_rows //= ranks
    parallelize_module(decoder, mesh, _ENDS)
    decoder.head.register_forward_hook(_arrived)
    decoder.is_split = True


def _arrived(head: nn.Module, given: object, out: Tensor) -> Tensor:
    """Wait for all parts of the logits: nothing may be under way where nobody looks at them."""
    return out.wait() if isinstance(out, AsyncCollectiveTensor) else out


def part_of(parameter: Tensor) -> Part | None:
    """Which part of a parameter this process has; None: all of it."""
    if not isinstance(parameter, DTensor):
        return None
    (placement,), mesh = parameter.placements, parameter.device_mesh
    if not isinstance(placement, Shard):
        return None
    return Part(placement.dim, mesh.get_local_rank(), mesh.size())


def like(parameter: Tensor, tensor: Tensor) -> nn.Parameter:
    """``tensor``, this process's part, in the place of ``parameter``."""
    if isinstance(parameter, DTensor):
        tensor = DTensor.from_local(
            tensor,
            parameter.device_mesh,
            parameter.placements,
            run_check=False,
            shape=parameter.shape,
            stride=parameter.stride(),
        )
    return nn.Parameter(tensor, requires_grad=False)
