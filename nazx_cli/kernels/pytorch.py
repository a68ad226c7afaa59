"""Attention in PyTorch, on any device: scores from coefficients, and an index in dense pieces.

With rope(q, i) = (ra, rb, rest) and an un-rotated key (a, b, rest') the score at position n is

    s + sum_f [ A_f cos(theta_f n) + B_f sin(theta_f n) ]
    s = rest . rest',   A_f = ra_f a_f + rb_f b_f,   B_f = rb_f a_f - ra_f b_f

Each of s, A_f, B_f is a dot product of the key with a *probe* made from the query, so that all of
them come from one matrix product.

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
from typing import cast

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.kernels.base import Attended, InvertedIndex, PairTable, Tokens
from nazx_cli.kernels.lists import PostingLists
from nazx_cli.kernels.rows import GrowingRows

_LONGEST = 256
_TAIL = 2_048  # positions in the tail before the index is built again
_BATCH = 1 << 20  # coefficients gathered at a time


def probes(query: Tensor, phases: Tensor, kv_heads: int) -> Tensor:
    """(kv_heads, group * (1 + 2F), D) float32 probes of an un-rotated ``query`` (heads, D).

    ``phases`` (2F,) are those of the query's own position. The scale 1/sqrt(D) is folded in.
    Order within a head: s, A_0..A_F-1, B_0..B_F-1.
    """
    half, (heads, dim) = len(phases) // 2, query.shape
    q = query.float() * dim**-0.5
    cos, sin = phases[:half], phases[half:]
    a, b = q[:, :half], q[:, half : 2 * half]
    ra, rb = a * cos - b * sin, b * cos + a * sin  # (H, F)
    out = torch.zeros(heads, 1 + 2 * half, dim, device=q.device)
    out[:, 0, 2 * half :] = q[:, 2 * half :]
    f = torch.arange(half, device=q.device)
    out[:, 1 + f, f] = ra
    out[:, 1 + f, half + f] = rb
    out[:, 1 + half + f, f] = rb
    out[:, 1 + half + f, half + f] = -ra
    return out.view(kv_heads, -1, dim)


def plain_probes(query: Tensor, half: int, kv_heads: int) -> Tensor:
    """(kv_heads, group, D) float32 probes of the dimensions that RoPE leaves alone, from an
    un-rotated ``query`` (heads, D); scale 1/sqrt(D) folded in."""
    q = query.float().mul(query.shape[1] ** -0.5)
    q[:, : 2 * half] = 0
    return q.view(kv_heads, -1, query.shape[1])


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of n keys: ``s`` (n, H) and ``ab`` (n, H, 2F), float32, any strides."""

    s: Tensor
    ab: Tensor

    def take(self, which: Tensor) -> Coefficients:
        """Those of the keys ``which`` (m,)."""
        return Coefficients(self.s.index_select(0, which), self.ab.index_select(0, which))

    def scores(self, phases: Tensor) -> Tensor:
        """(n, H, k) scores at k positions per key, from their phases (n, 2F, k)."""
        if not phases.shape[1]:
            return self.s.unsqueeze(-1).repeat(1, 1, phases.shape[2])
        return torch.bmm(self.ab, phases).add_(self.s.unsqueeze(-1))


class OnlineSoftmax:
    """Softmax-weighted sums over blocks of scores, kept relative to the largest score so far.

    ``total`` (X, H) is the weighted sum of rows, ``mass`` (H,) the sum of the weights.
    """

    def __init__(self, width: int, heads: int, device: torch.device) -> None:
        self._top = torch.full((heads,), -torch.inf, device=device)
        self.mass = torch.zeros(heads, device=device)
        self.total = torch.zeros(width, heads, device=device)

    def weigh(self, scores: Tensor) -> Tensor:
        """Unnormalised weights of ``scores`` (n, H, k), in their place; rescales what was
        gathered before."""
        top = torch.maximum(self._top, scores.amax((0, 2)))
        shrink = torch.exp(self._top - top)
        self.mass *= shrink
        self.total *= shrink
        self._top = top
        weights = scores.sub_(top[:, None]).exp_()
        self.mass += weights.sum((0, 2))
        return weights

    def result(self) -> Attended:
        """(X, H): the weighted mean."""
        return Attended(self.total / self.mass, self._top + self.mass.log())


@dataclass(frozen=True)
class Pieces:
    """G pieces of one length: slots (G,) int32 and phases (G, 2F, length) float32."""

    slots: Tensor
    phases: Tensor

    @property
    def nbytes(self) -> int:
        return self.slots.numel() * 4 + self.phases.numel() * 4


class TorchPairs(PairTable):
    """Pairs (kv_heads, U, 2F)."""

    def derive(self, states: Tensor, vectors: Tensor, constants: Tensor) -> None:
        matrix = vectors.flatten(0, 1).to(states.dtype)
        rows = torch.addmm(constants.flatten().to(states.dtype), states, matrix.t())
        self.put(rows.view(len(states), *constants.shape))

    def put(self, keys: Tensor) -> None:
        self.tables[0].extend(len(keys)).copy_(keys.transpose(0, 1))

    def coefficients(self, query: Tensor, phases: Tensor) -> Tensor:
        """A and B of every token and spare row, (>= U, heads, 2F) float32, any strides; query and
        phases as for ``probes``."""
        pairs = self.tables[0].padded
        kv_heads, count, turned = pairs.shape
        for_ab = _rotary_probes(query, phases, kv_heads).to(pairs.dtype)
        ab = torch.bmm(pairs, for_ab.transpose(1, 2)).float()
        by_head = ab.view(kv_heads, count, len(query) // kv_heads, turned)
        return by_head.transpose(1, 2).flatten(0, 1).transpose(0, 1)


class _UnmadePairs(TorchPairs):
    """Pairs for one query, which reaches the states by way of ``vectors`` instead."""

    def __init__(self, states: Tensor, vectors: Tensor, constants: Tensor) -> None:
        super().__init__([])
        self._given = states, vectors, constants

    def coefficients(self, query: Tensor, phases: Tensor) -> Tensor:
        states, vectors, constants = self._given
        for_ab = _rotary_probes(query, phases, len(vectors))
        matrix = torch.bmm(for_ab, vectors).flatten(0, 1).to(states.dtype)  # (heads * 2F, C)
        biases = torch.bmm(for_ab, constants.unsqueeze(-1)).flatten()
        return (states @ matrix.t()).float().add_(biases).view(len(states), len(query), -1)


class TorchIndex(InvertedIndex):
    """Posting lists as pieces, with the phases of every position."""

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(config, device, dtype)
        self.pieces: list[Pieces] = []
        self._indexed = 0  # positions covered by the pieces
        self._tail_slots = GrowingRows((), torch.int32, device)
        self._tail_phases = GrowingRows((2 * self.rotary.half,), torch.float32, device)
        self._made_for = 0  # sequence length that the phases were made for

    @property
    def nbytes(self) -> int:
        """Bytes of phases, slots and the id-to-slot table."""
        tail = self._tail_slots.nbytes + self._tail_phases.nbytes
        return self.slots.nbytes + tail + sum(piece.nbytes for piece in self.pieces)

    def edited(self, at: int, removed: int, added: int) -> None:
        """Drop positions from ``at`` on; inside the pieces all are dropped."""
        kept = at - self._indexed
        if kept < 0:
            self.pieces, self._indexed, kept = [], 0, 0
        self._tail_slots.truncate(kept)
        self._tail_phases.truncate(kept)

    def wasteful(self) -> bool:
        """Only where an edit has made new pieces necessary anyway."""
        return not self._tail_slots.count and super().wasteful()

    def new_pairs(self) -> TorchPairs:
        shape, lead = (2 * self.rotary.half,), (self.config.num_kv_heads,)
        return TorchPairs([GrowingRows(shape, self.dtype, self.device, lead)])

    def pairs_of(self, states: Tensor, vectors: Tensor, constants: Tensor) -> TorchPairs:
        """Not made at all: one query needs less than that costs."""
        return _UnmadePairs(states, vectors, constants)

    def weights(self, query: Tensor, phases: Tensor, s: Tensor, pairs: PairTable) -> Attended:
        coefs = Coefficients(s, cast(TorchPairs, pairs).coefficients(query, phases)[: len(s)])
        softmax = OnlineSoftmax(len(s), s.shape[1], s.device)
        for pieces in self.pieces:
            for slots, at in _batches(pieces, coefs.ab[0].numel()):
                weights = softmax.weigh(coefs.take(slots).scores(at))
                softmax.total.index_add_(0, slots, weights.sum(-1))
        if self._tail_slots.count:
            slots = self._tail_slots.rows
            weights = softmax.weigh(coefs.take(slots).scores(self._tail_phases.rows.unsqueeze(-1)))
            softmax.total.index_add_(0, slots, weights.squeeze(-1))
        return softmax.result()

    def _take_in(self, tokens: Tokens) -> Tensor:
        n, rotary = len(tokens), self.rotary
        if not rotary.same_frequencies(self._made_for, tokens.total):
            self.edited(0, n, n)
        self._made_for = tokens.total
        start = self._indexed + self._tail_slots.count
        if n - self._indexed > _TAIL or (start == 0 and n > 1):
            return self._build(tokens, n)
        new = tokens.slice(start, n)
        fresh = self.slots.assign(torch.unique(new))
        self._tail_slots.extend(n - start).copy_(self.slots.of(new))
        self._tail_phases.extend(n - start).copy_(
            rotary.phases(start, n, tokens.total, self.device)
        )
        return fresh

    def _build(self, tokens: Tokens, n: int) -> Tensor:
        ids = tokens.slice(0, n)
        fresh = self.slots.assign(torch.unique(ids))
        lists = PostingLists.build(self.slots.of(ids))
        table = self.rotary.phases(0, n, tokens.total, self.device)
        self.pieces = [
            _gather(lists, table, size, which, begins) for size, which, begins in _cut(lists.counts)
        ]
        self._tail_slots.truncate(0)
        self._tail_phases.truncate(0)
        self._indexed = n
        return fresh

    def _occupied(self) -> Tensor:
        every = [self._tail_slots.rows, *(piece.slots for piece in self.pieces)]
        occupied: Tensor = torch.unique(torch.cat(every))
        return occupied.long().cpu()

    def _renumber(self, kept: Tensor) -> None:
        numbers = torch.arange(len(kept), dtype=torch.int32, device=self.device)
        number_of = numbers.new_zeros(int(kept.max()) + 1 if len(kept) else 0)
        number_of[kept.to(self.device)] = numbers
        self.pieces = [Pieces(number_of[piece.slots], piece.phases) for piece in self.pieces]


def _rotary_probes(query: Tensor, phases: Tensor, kv_heads: int) -> Tensor:
    """(kv_heads, group * 2F, 2F) float32: those of A and B, without the rest of a key."""
    turned = len(phases)
    both = probes(query, phases, kv_heads).view(kv_heads, -1, 1 + turned, query.shape[1])
    return both[:, :, 1:, :turned].flatten(1, 2)


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


def _gather(lists: PostingLists, table: Tensor, size: int, which: Tensor, begins: Tensor) -> Pieces:
    """The pieces of one length that begin at ``begins`` in the lists ``which``, those of slots."""
    first = lists.offsets[:-1][which] + begins
    positions = lists.positions[first[:, None] + torch.arange(size)]  # (G, size)
    phases = table[positions.to(table.device).long()].transpose(1, 2).contiguous()
    return Pieces(lists.distinct[which].to(table.device), phases)


def _batches(pieces: Pieces, width: int) -> list[tuple[Tensor, Tensor]]:
    """Pieces in batches, so that nothing transient grows with the context."""
    per = max(_BATCH // max(width, pieces.phases.shape[2]), 1)
    if len(pieces.slots) <= per:
        return [(pieces.slots, pieces.phases)]
    starts = range(0, len(pieces.slots), per)
    return [(pieces.slots[i : i + per], pieces.phases[i : i + per]) for i in starts]
