"""The contract of a kernel: an inverted index of one context that attends (design section 2).

A context's distinct tokens have *slots*, row numbers of whatever is held for a token. The index
knows where the token of each slot stands, and weighs all those positions for one query:

    w_u = sum over the positions n of slot u of softmax_n( s_u + what RoPE's dimensions add at n )

The latter needs a token's un-rotated key components that RoPE turns, its *pairs*, which each kernel
keeps in an order of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.kernels.rotary import Rotary
from nazx_cli.kernels.rows import GrowingRows, new_slots

_FEW_SLOTS = 512  # not worth giving back
_WASTE = 1.25  # slots for each token that occurs, above which the others are given back


class Attended(NamedTuple):
    """Attention of one query to some positions, which may be a part of those it is to attend to.

    ``values`` are what the softmax over these positions gives by itself, ``lse`` (H,) float32 the
    logarithm of the sum of the exponentials of their scores in each head: the numerator of a
    softmax over more positions is values * exp(lse), its denominator exp(lse).
    """

    values: Tensor
    lse: Tensor


def joined(blocks: Sequence[Attended], axis: int) -> Attended:
    """Blocks of heads, which lie along ``axis`` of the values, as one."""
    if len(blocks) == 1:
        return blocks[0]
    values, lse = zip(*blocks, strict=True)
    return Attended(torch.cat(values, axis), torch.cat(lse))


def merged(values: Tensor, lse: Tensor) -> Attended:
    """Attention to parts of the positions, values (parts, ..., D) and lse (parts, ...), as to all
    of them."""
    return Attended((lse.softmax(0).unsqueeze(-1) * values).sum(0), lse.logsumexp(0))


class Tokens(Protocol):
    """Token ids of a context or of a stretch of it, or the cells that stand for them
    (``context.cells``)."""

    def __len__(self) -> int: ...

    @property
    def total(self) -> int:
        """Positions of the whole context, on which the angles of some RoPE types depend."""

    def slice(self, start: int, stop: int) -> Tensor:
        """(stop - start,) ids, int32, or cells, int64, on the CPU."""


class PairTable(ABC):
    """Pairs of one layer, a row for each slot: what ``InvertedIndex.weights`` reads of a key.

    ``tables`` hold them, one for each block of heads that the kernel takes at a time.
    """

    def __init__(self, tables: list[GrowingRows]) -> None:
        self.tables = tables

    @property
    def count(self) -> int:
        """Rows held."""
        return self.tables[0].count

    @abstractmethod
    def derive(self, states: Tensor, vectors: Tensor, constants: Tensor) -> None:
        """Add the pairs of ``states`` (n, C): their products with ``vectors`` (kv_heads, 2F, C),
        plus ``constants`` (kv_heads, 2F)."""

    @abstractmethod
    def put(self, keys: Tensor) -> None:
        """Add pairs (n, kv_heads, 2F)."""

    def keep(self, which: Tensor) -> None:
        """Keep the rows ``which`` (n,) int64, in that order."""
        for table in self.tables:
            table.keep(which)

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""
        return sum(table.nbytes for table in self.tables)


class InvertedIndex(ABC):
    """Posting lists of one context by slot; ``slots`` tells which token has which."""

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        self.rotary = Rotary(config.rope)
        self.slots = new_slots(config)

    @abstractmethod
    def edited(self, at: int, removed: int, added: int) -> None:
        """Positions at..at+removed-1 go, and ``added`` new ones come in their place."""

    def sync(self, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        """Take in what is new. Returns ids (n,) that got new slots, in slot order, after which
        rows are kept; and the slots to keep then (m,) int64, numbered anew in that order, where
        many belonged to tokens that are gone."""
        fresh = self._take_in(tokens)
        return fresh, self._compact() if self.wasteful() else None

    def wasteful(self) -> bool:
        """Whether many slots belong to tokens that are gone."""
        count = len(self.slots)
        return count > _FEW_SLOTS and count > _WASTE * len(self._occupied())

    @abstractmethod
    def new_pairs(self) -> PairTable:
        """An empty table of pairs in this kernel's order."""

    def pairs_of(self, states: Tensor, vectors: Tensor, constants: Tensor) -> PairTable:
        """Pairs of ``states`` (n, C) for one query: see ``PairTable.derive``."""
        pairs = self.new_pairs()
        pairs.derive(states, vectors, constants)
        return pairs

    @abstractmethod
    def weights(self, query: Tensor, phases: Tensor, s: Tensor, pairs: PairTable) -> Attended:
        """(>= U, H) float32 softmax weights of each slot's positions; columns add up to 1, and
        rows past the last slot are 0.

        query (H, D) un-rotated, phases (2F,) float32 of its position, s (>= U, H) float32 scores
        of the dimensions that are not rotated, scale 1/sqrt(D) included. The result has the rows
        of ``s``.
        """

    def attend(
        self,
        query: Tensor,
        phases: Tensor,
        key: Tensor,
        constants: Tensor,
        states: Tensor,
        pairs: PairTable,
    ) -> Attended:
        """(H, C) means of ``states`` (U, C), by the weights of each slot's positions.

        Scores of the dimensions that are not rotated are states @ key.T + constants, with key
        (H, C) and constants (H,) float32; query, phases and pairs as for ``weights``.
        """
        s = (states @ key.to(states.dtype).t()).float().add_(constants)
        weights, lse = self.weights(query, phases, s, pairs)
        return Attended(weights.t().to(states.dtype) @ states, lse)

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of every tensor held."""

    @abstractmethod
    def _take_in(self, tokens: Tokens) -> Tensor:
        """Bring the lists up to ``tokens``; returns ids (n,) that got new slots."""

    @abstractmethod
    def _occupied(self) -> Tensor:
        """(n,) int64 ascending slots of the tokens that occur."""

    @abstractmethod
    def _renumber(self, kept: Tensor) -> None:
        """The slots ``kept`` (n,), which are all that occur, are 0..n-1 from now on."""

    def _compact(self) -> Tensor:
        kept = self._occupied()
        self.slots.keep(kept)
        self._renumber(kept)
        return kept
