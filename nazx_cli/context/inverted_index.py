"""Attention over posting lists: exact softmax weights per distinct token.

The positions of a context are held as *pieces* of posting lists. Each list of n positions is cut
into pieces of 256, 128, ... 2, 1 positions by the binary digits of n, so that pieces of one
length form a dense batch without padding:

    score(h, piece, t) = s(h, u) + AB(h, u) . phase(piece, t)

is one batched product of coefficients (G, H, 2F) with phases (G, 2F, length). Recently appended
positions wait in a short tail of single positions until the index is built again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nazx_cli.context.growing import GrowingRows
from nazx_cli.context.posting_lists import PostingLists
from nazx_cli.context.projections import Projections
from nazx_cli.context.scoring import Coefficients, OnlineSoftmax
from nazx_cli.context.slots import SlotTable
from nazx_cli.context.tokens import TokenSequence

_LONGEST = 256
_TAIL = 2_048  # positions in the tail before the index is built again
_BATCH = 1 << 20  # coefficients gathered at a time


@dataclass(frozen=True)
class Pieces:
    """G pieces of one length: slots (G,) int32 and phases (G, 2F, length) float32."""

    slots: Tensor
    phases: Tensor

    @property
    def nbytes(self) -> int:
        return self.slots.numel() * 4 + self.phases.numel() * 4


class InvertedIndex:
    """Posting lists of a context, with one *slot* (row number) per distinct token."""

    def __init__(self, projections: Projections) -> None:
        self._p = projections
        p = projections
        self.slots = SlotTable(p.config.vocab_size)
        self.pieces: list[Pieces] = []
        self.indexed = 0  # positions covered by the pieces
        self._tail_slots = GrowingRows((), torch.int32, p.device)
        self._tail_phases = GrowingRows((2 * p.rotary.half,), torch.float32, p.device)
        self.length = 0
        self._made_for = 0  # sequence length that the phases were made for

    @property
    def nbytes(self) -> int:
        """Bytes of phases, slots and the id-to-slot table."""
        tail = self._tail_slots.nbytes + self._tail_phases.nbytes
        return self.slots.nbytes + tail + sum(piece.nbytes for piece in self.pieces)

    def forget(self, at: int) -> None:
        """Drop positions from ``at`` on; inside the index all of it is dropped."""
        if at < self.indexed:
            self.pieces, self.indexed = [], 0
            self._tail_slots.truncate(0)
            self._tail_phases.truncate(0)
        else:
            self._tail_slots.truncate(at - self.indexed)
            self._tail_phases.truncate(at - self.indexed)
        self.length = min(self.length, at)

    def sync(self, tokens: TokenSequence) -> Tensor:
        """Take in what is new; returns ids (n,) that got new slots, in slot order."""
        n, rotary = len(tokens), self._p.rotary
        if not rotary.same_frequencies(self._made_for, n):
            self.forget(0)
        self._made_for = n
        start = self.indexed + self._tail_slots.count
        if n - self.indexed > _TAIL or (start == 0 and n > 1):
            return self._build(tokens, n)
        new = tokens.slice(start, n)
        fresh = self.slots.assign(torch.unique(new))
        slots = self.slots.of(new).to(self._p.device)
        self._tail_slots.extend(n - start).copy_(slots)
        phases = rotary.phases(start, n, n, self._p.device)
        self._tail_phases.extend(n - start).copy_(phases)
        self.length = n
        return fresh

    def wasteful(self, tokens: TokenSequence) -> bool:
        """Whether many slots belong to tokens that are gone; looked at when an edit has made
        a new index necessary anyway."""
        if self.indexed or len(self.slots) <= 512:
            return False
        present = torch.unique(tokens.slice(0, len(tokens)))
        return len(self.slots) > 1.25 * len(present)

    def compact(self, tokens: TokenSequence) -> Tensor:
        """Keep only slots of tokens that occur; returns the old slots kept (n,) int64."""
        present = torch.unique(tokens.slice(0, len(tokens)))
        old = self.slots.of(present)
        old = old[old >= 0].long().sort().values
        self.slots.keep(old)
        self.forget(0)
        return old

    def weights(self, coefs: Coefficients) -> Tensor:
        """(U, H) softmax weights per distinct token, from the coefficients of each; columns
        add up to 1."""
        softmax = OnlineSoftmax(len(coefs.s), coefs.s.shape[1], coefs.s.device)
        for pieces in self.pieces:
            for slots, phases in _batches(pieces, coefs.ab[0].numel()):
                weights = softmax.weigh(coefs.take(slots).scores(phases))
                softmax.total.index_add_(0, slots, weights.sum(-1))
        if self._tail_slots.count:
            slots = self._tail_slots.rows
            weights = softmax.weigh(coefs.take(slots).scores(self._tail_phases.rows.unsqueeze(-1)))
            softmax.total.index_add_(0, slots, weights.squeeze(-1))
        return softmax.result()

    def _build(self, tokens: TokenSequence, n: int) -> Tensor:
        lists = PostingLists.build(tokens.slice(0, n))
        fresh = self.slots.assign(lists.distinct)
        slots = self.slots.of(lists.distinct)
        table = self._p.rotary.phases(0, n, n, self._p.device)
        self.pieces = [
            _gather(lists, slots, table, size, which, begins)
            for size, which, begins in _cut(lists.counts)
        ]
        self._tail_slots.truncate(0)
        self._tail_phases.truncate(0)
        self.indexed = self.length = n
        return fresh


def _cut(counts: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Cut lists of ``counts`` (U,) positions into pieces.

    Yields for each piece length the lists it occurs in, (G,), and where in them each piece
    begins, (G,).
    """
    whole = counts // _LONGEST
    which = torch.repeat_interleave(torch.arange(len(counts)), whole)
    number = torch.arange(len(which)) - (whole.cumsum(0) - whole)[which]
    if len(which):
        yield _LONGEST, which, number * _LONGEST
    size = _LONGEST // 2
    while size:
        which = torch.nonzero(counts & size).squeeze(1)
        if len(which):
            yield size, which, counts[which] // (2 * size) * (2 * size)
        size //= 2


def _gather(
    lists: PostingLists, slots: Tensor, table: Tensor, size: int, which: Tensor, begins: Tensor
) -> Pieces:
    """The pieces of one length that begin at ``begins`` in the lists ``which``."""
    first = lists.offsets[:-1][which] + begins
    positions = lists.positions[first[:, None] + torch.arange(size)]  # (G, size)
    phases = table[positions.to(table.device).long()].transpose(1, 2).contiguous()
    return Pieces(slots[which].to(table.device), phases)


def _batches(pieces: Pieces, width: int) -> list[tuple[Tensor, Tensor]]:
    """Pieces in batches, so that nothing transient grows with the context."""
    per = max(_BATCH // max(width, pieces.phases.shape[2]), 1)
    if len(pieces.slots) <= per:
        return [(pieces.slots, pieces.phases)]
    starts = range(0, len(pieces.slots), per)
    return [(pieces.slots[i : i + per], pieces.phases[i : i + per]) for i in starts]
