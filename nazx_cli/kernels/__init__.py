"""Attention of one query over posting lists, and products of single rows.

``base`` is the contract: an index that follows a context's tokens and edits, and attends. It has
one implementation for each kernel: ``pytorch`` runs anywhere, ``native`` is C for CPUs, ``triton``
is for CUDA. Which one a model uses is chosen once, by ``choose_kernel``, and handed along by name.

Importing this package loads no torch: estimates need the names and sizes that are said here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from nazx_cli.config import ModelConfig
    from nazx_cli.kernels.base import InvertedIndex

KernelName = Literal["torch", "native", "triton"]
"""What computes attention over posting lists: PyTorch, compiled C, or Triton."""

ROW_STEP = 256
"""Rows by which tables grow."""
PHASE_BLOCK = 1024
"""Positions whose phases are added up from two tables."""
PHASE_STEP = 64 * PHASE_BLOCK
PHASE_SPARE = 16
"""Numbers behind each of those tables that the compiled kernel may read."""
RECENT_CELLS = 1024
"""Cells that wait in a short list of their own before they are merged into the long one."""
SPARE_POSITIONS = 512
"""Room for more positions in lists that follow edits."""
LANES = 16
"""Heads that the compiled kernel takes at a time, at most."""
SEGMENT_ROWS = 128
"""Positions of one program of the Triton kernel, and of its longest segments."""
SEGMENT_TAIL = 2_048
"""Positions appended to the segments before the lists are cut again."""


def heads_of_block(heads: int) -> int:
    """How many of ``heads`` the compiled kernel takes at a time: the most that divide them, up to
    ``LANES``."""
    return next(n for n in range(min(heads, LANES), 0, -1) if heads % n == 0)


def choose_kernel(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> KernelName:
    """The quickest kernel that this machine can run for a model; the only place that asks.

    The first question about a shape may compile something. ``NAZX_NATIVE=0`` means ``torch``.
    """
    from nazx_cli.kernels.native.kernel import kernel_for
    from nazx_cli.kernels.triton.support import usable

    if usable(config, device, dtype):
        return "triton"
    return "torch" if kernel_for(config, device, dtype) is None else "native"


def new_index(
    kernel: KernelName, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> InvertedIndex:
    """An empty index for one context of a model that ``choose_kernel`` gave ``kernel`` for."""
    if kernel == "triton":
        from nazx_cli.kernels.triton.index import TritonIndex

        return TritonIndex(config, device, dtype)
    if kernel == "native":
        from nazx_cli.kernels.native.index import NativeIndex

        return NativeIndex(config, device, dtype)
    from nazx_cli.kernels.pytorch import TorchIndex

    return TorchIndex(config, device, dtype)
