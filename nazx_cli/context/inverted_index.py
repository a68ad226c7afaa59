"""Attention over posting lists: exact softmax weights per distinct token.

The positions of a context are held as *pieces* of posting lists. Each list of n positions is cut
into pieces of 256, 128, ... 2, 1 positions by the binary digits of n, so that pieces of one
length form a dense batch without padding:

    score(h, piece, t) = s(h, u) + AB(h, u) . phase(piece, t)

is one batched product of coefficients (G, H, 2F) with phases (G, 2F, length). Recently appended
positions wait in a short tail of single positions until the index is built again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nazx_cli.context.growing import GrowingRows
from nazx_cli.context.posting_lists import PostingLists
from nazx_cli.context.projections import Projections
from nazx_cli.context.scoring import OnlineSoftmax, scores_at
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
    """Posting lists of a context, with one *slot* (row number) per distinct token.

    ``known`` (U,) int32 are the ids by slot; slots stay the same until ``compact``.
    """

    def __init__(self, projections: Projections) -> None:
        self._p = projections
        p = projections
        self.slot_of = torch.full((p.config.vocab_size,), -1, dtype=torch.int32)
        self.known = torch.empty(0, dtype=torch.int32)
        self.pieces: list[Pieces] = []
        self.indexed = 0  # positions covered by the pieces
        self._tail_slots = GrowingRows((), torch.int32, p.device)
        self._tail_phases = GrowingRows((2 * p.rotary.half,), torch.float32, p.device)
        self.length = 0
        self._made_for = 0  # sequence length that the phases were made for

    @property
    def nbytes(self) -> int:
        """Bytes of phases, slots and the id-to-slot table."""
        table = (self.slot_of.numel() + self.known.numel()) * 4
        tail = self._tail_slots.nbytes + self._tail_phases.nbytes
        return table + tail + sum(piece.nbytes for piece in self.pieces)

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
        fresh = self._assign(torch.unique(new))
        slots = self.slot_of[new.long()].to(self._p.device)
        self._tail_slots.extend(n - start).copy_(slots)
        phases = rotary.phases(start, n, n, self._p.device)
        self._tail_phases.extend(n - start).copy_(phases)
        self.length = n
        return fresh

    def wasteful(self, tokens: TokenSequence) -> bool:
        """Whether many slots belong to tokens that are gone; looked at when an edit has made
        a new index necessary anyway."""
        if self.indexed or len(self.known) <= 512:
            return False
        present = torch.unique(tokens.slice(0, len(tokens)))
        return len(self.known) > 1.25 * len(present)

    def compact(self, tokens: TokenSequence) -> Tensor:
        """Keep only slots of tokens that occur; returns the old slots kept (n,) int64."""
        present = torch.unique(tokens.slice(0, len(tokens)))
        old = self.slot_of[present.long()]
        old = old[old >= 0].long().sort().values
        self.known = self.known[old]
        self.slot_of.fill_(-1)
        self.slot_of[self.known.long()] = torch.arange(len(old), dtype=torch.int32)
        self.forget(0)
        return old

    def weights(self, coefs: Tensor) -> Tensor:
        """(U, H) softmax weights per distinct token, from coefficients (U, H * (1 + 2F)).

        The H columns of s come first (see ``scoring``). Columns add up to 1.
        """
        heads = self._p.config.num_heads
        softmax = OnlineSoftmax(heads, len(coefs), coefs.device)
        for pieces in self.pieces:
            for slots, phases in _batches(pieces, coefs.shape[1]):
                self._weigh_pieces(softmax, coefs, slots, phases)
        if self._tail_slots.count:
            slots = self._tail_slots.rows
            scores = scores_at(coefs[slots], self._tail_phases.rows, heads)
            weights = softmax.weigh(scores)
            softmax.total.index_add_(1, slots, weights.t())
        return softmax.result().t()

    def _weigh_pieces(
        self, softmax: OnlineSoftmax, coefs: Tensor, slots: Tensor, phases: Tensor
    ) -> None:
        heads = len(softmax.mass)
        s = coefs[:, :heads].index_select(0, slots).unsqueeze(-1)  # (G, H, 1)
        if phases.shape[1]:
            ab = coefs[:, heads:].index_select(0, slots).view(len(slots), heads, -1)
            scores = torch.bmm(ab, phases).add_(s)  # (G, H, length)
        else:
            scores = s.expand(-1, -1, phases.shape[2])
        weights = softmax.weigh(scores.transpose(1, 2)).sum(1)  # (G, H)
        softmax.total.index_add_(1, slots, weights.t())

    def _assign(self, ids: Tensor) -> Tensor:
        """Give slots to those of the distinct ``ids`` that have none; returns those."""
        fresh = ids[self.slot_of[ids.long()] < 0]
        first = len(self.known)
        numbers = torch.arange(first, first + len(fresh), dtype=torch.int32)
        self.slot_of[fresh.long()] = numbers
        self.known = torch.cat((self.known, fresh.to(torch.int32)))
        return fresh

    def _build(self, tokens: TokenSequence, n: int) -> Tensor:
        lists = PostingLists.build(tokens.slice(0, n))
        fresh = self._assign(lists.distinct)
        slots = self.slot_of[lists.distinct.long()]
        table = self._p.rotary.phases(0, n, n, self._p.device)
        self.pieces = [
            _gather(lists, slots, table, size, taken)
            for size, taken in _sizes(lists.counts)
            if bool((taken >= 0).any())
        ]
        self._tail_slots.truncate(0)
        self._tail_phases.truncate(0)
        self.indexed = self.length = n
        return fresh


def _sizes(counts: Tensor) -> list[tuple[int, Tensor]]:
    """For each piece length, where in its list each token's pieces of that length begin:
    (U, k) offsets with -1 where there is none."""
    out = []
    most = int(counts.max()) // _LONGEST
    steps = torch.arange(most) * _LONGEST
    whole = torch.where(steps < (counts // _LONGEST * _LONGEST)[:, None], steps, -1)
    out.append((_LONGEST, whole))
    size = _LONGEST // 2
    while size:
        begins = counts // (2 * size) * (2 * size)
        out.append((size, torch.where((counts & size) > 0, begins, -1)[:, None]))
        size //= 2
    return out


def _gather(lists: PostingLists, slots: Tensor, table: Tensor, size: int, begins: Tensor) -> Pieces:
    """The pieces of one length; ``begins`` (U, k) offsets within each list, -1 for none."""
    which, column = torch.nonzero(begins >= 0, as_tuple=True)
    first = lists.offsets[:-1][which] + begins[which, column]
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
