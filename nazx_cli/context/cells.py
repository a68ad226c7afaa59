"""Cells: what stands for a token where initial states see the tokens before their own.

A position's *cell* is its token with the tokens before it that its initial state sees. Equal cells
have equal un-rotated keys and equal values, so all that is said of distinct tokens (design section
2) holds of distinct cells, and layouts and kernels are given cells where they ask for tokens.

Each cell has a number, which is computed and not handed out: the tokens of the cell, counted from 1
so that 0 is "before the start", are its digits to the base V + 1, its own token the lowest. Numbers
thus need no table, stay the same through all edits, and nothing is left of cells that are gone.
Where a state sees its own token alone, the number is the token's id.

No torch here: numbers are computed alike on tensors and on arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nazx_cli.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor


class _Ids(Protocol):
    """The token ids of a context, as ``kernels.base.Tokens``."""

    def __len__(self) -> int: ...

    @property
    def total(self) -> int: ...

    def slice(self, start: int, stop: int) -> Tensor: ...


def numbers(ids: Any, config: ModelConfig) -> Any:
    """(n,) int64 of the cells of token ids (n,) int64, a tensor or an array, before which nothing
    stands."""
    base, scale = config.vocab_size + 1, 1
    digits = ids + 1
    out = digits + 0
    for back in range(1, config.attention.initial_window):
        scale *= base
        out[back:] += digits[: max(0, len(ids) - back)] * scale
    return out


def standing_for(tokens: _Ids, config: ModelConfig) -> _Ids:
    """What layouts of a model are given for a context's ``tokens``: those, or their cells."""
    return Cells(tokens, config) if config.attention.initial_window > 1 else tokens


def grams(cells: Tensor, config: ModelConfig) -> Tensor:
    """(n, w) int64 tokens of cells (n,), as ``model.layers.grams_of`` has them."""
    import torch

    base, window = config.vocab_size + 1, config.attention.initial_window
    if window == 1:
        return cells.long().unsqueeze(-1)
    return torch.stack([cells // base**back % base - 1 for back in range(window)], -1)


@dataclass(frozen=True)
class Cells:
    """The cells of a context's positions, in place of its tokens."""

    tokens: _Ids
    config: ModelConfig

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def total(self) -> int:
        return self.tokens.total

    def slice(self, start: int, stop: int) -> Tensor:
        """(stop - start,) int64 numbers of positions start..stop-1, on the CPU."""
        first = max(0, start - self.config.attention.initial_window + 1)
        return numbers(self.tokens.slice(first, stop).long(), self.config)[start - first :]  # type: ignore[no-any-return]
