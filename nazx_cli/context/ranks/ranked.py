"""A context over several processes: each holds the posting lists of a stretch of its positions.

Every rank runs the last position through all layers, and in each of them attends to its own
stretch: o_r, with the logarithm l_r of the summed exponentials of its scores. One gathering a layer
then gives every rank

    o = sum_r exp(l_r - l) o_r,    l = log sum_r exp(l_r)

which is the softmax over all positions, of the numerators o_r exp(l_r) and denominators exp(l_r)
relative to their maximum: heads * (D + 1) numbers from each rank. A layout counts its positions
from 0. RoPE turns a product by how far two positions are apart, so that the query gets the phases
of its distance from the stretch's beginning, and a stretch that edits have moved stays as it is.

The first rank alone has the context itself. Before each round it tells the others what has changed.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.context.cells import grams, standing_for
from nazx_cli.context.context import TokenSequence
from nazx_cli.context.layout import Layout
from nazx_cli.context.layouts import LAYOUTS
from nazx_cli.context.ranks.shards import Edit, Shards, Stretch
from nazx_cli.kernels.base import Attended, Tokens, merged
from nazx_cli.ranks import Group, Kind


@dataclass(frozen=True)
class Part:
    """``length`` positions from ``start`` of ``tokens`` on; the whole context has ``total``."""

    tokens: Tokens
    start: int
    length: int
    total: int

    def __len__(self) -> int:
        return self.length

    def slice(self, start: int, stop: int) -> Tensor:
        """(stop - start,) tokens or cells."""
        return self.tokens.slice(self.start + start, self.start + stop)


class RankedLayout(Layout):
    """This rank's stretch of a context in a layout of any kind, ``held``."""

    name = "ranked"

    def __init__(self, held: Layout, group: Group) -> None:
        super().__init__(held.projections, held.kernel)
        self.held, self.group, self.kernel = held, group, held.kernel

    def place(self, stretch: Tokens, start: int) -> None:
        """Derive what is missing for this rank's ``stretch``, which begins at ``start``."""
        self.length, self.total = len(stretch), stretch.total
        if self.length:
            self.held.sync(stretch)
        p, at = self.projections, self.total - 1 - start
        self._phases = p.rotary.phases(at, at + 1, self.total, p.device)[0]

    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Attended:
        every = self.group.gather(self._own(layer, query))  # (ranks, H, D + 1)
        return merged(every[..., :-1], every[..., -1])

    def _own(self, layer: int, query: Tensor) -> Tensor:
        """(H, D + 1): what this rank's stretch gives, and its ``lse``."""
        if not self.length:
            nothing = torch.zeros(len(query), query.shape[1] + 1, device=query.device)
            nothing[:, -1] = -torch.inf
            return nothing
        values, lse = self.held.attend(layer, query, self._phases)
        return torch.cat((values, lse.unsqueeze(1)), 1)

    def edited(self, at: int, removed: int, added: int) -> None:
        if removed or at < self.length:  # what comes at the end is no edit
            self.held.edited(at, removed, added)
        self.length += added - removed

    @property
    def nbytes(self) -> int:
        """Bytes that this process holds."""
        return self.held.nbytes


class Leading(RankedLayout):
    """The first rank's: what a context of its own is given as memory."""

    def __init__(self, held: Layout, group: Group) -> None:
        super().__init__(held, group)
        self._number = next(group.numbers)
        self._shards = Shards(group.size)
        weakref.finalize(self, group.dropped.append, self._number)

    def edited(self, at: int, removed: int, added: int) -> None:
        left = self._shards.total - at
        if left > 0:
            self._shards.edited(at, min(removed, left), added)

    def sync(self, tokens: Tokens) -> None:
        """Tell the others what they hold from now on, and that a round begins."""
        self.group.tell_dropped()
        own, *others = self._shards.settle(len(tokens))
        for rank, stretch in zip(self.group.others, others, strict=True):
            self._tell(rank, stretch, tokens)
        for edit in own.edits:
            super().edited(edit.at, edit.removed, edit.added)
        self.place(Part(tokens, 0, own.length, len(tokens)), 0)

    def _tell(self, rank: int, stretch: Stretch, tokens: Tokens) -> None:
        config, total = self.projections.config, len(tokens)
        ids = [_ids(tokens, edit.start, edit.stop, config)[:, 0] for edit in stretch.edits]
        new = torch.cat(ids).to(torch.int32) if ids else torch.empty(0, dtype=torch.int32)
        first = range(stretch.start, min(stretch.start + 1, total))
        seen = _ids(tokens, first.start, first.stop, config)[:, 1:]
        round_ = Round(
            self._number,
            self.held.name,
            total,
            stretch.start,
            stretch.length,
            _known(_ids(tokens, total - 1, total, config)),
            _known(seen),
        )
        edits = torch.tensor([(e.at, e.removed, e.added) for e in stretch.edits])
        numbers = (*round_.numbers(), len(stretch.edits), len(new))
        self.group.send(rank, numbers, edits.view(-1, 3), new)


class Following(RankedLayout):
    """Another rank's, with the tokens of its stretch and, where initial states see more than their
    own, those right before it."""

    def __init__(self, held: Layout, group: Group) -> None:
        super().__init__(held, group)
        self._tokens = TokenSequence()
        self._before: tuple[int, ...] = ()

    def sync(self, tokens: Tokens) -> None:
        raise AssertionError("what a rank holds is told by the first one")

    def follow(self, round_: Round, edits: Sequence[Edit], ids: Tensor) -> None:
        """Bring the stretch up to a round; ``ids`` are those of all that comes by ``edits``."""
        shift = len(self._before)
        for edit in edits:
            self.edited(edit.at, edit.removed, edit.added)
            at = shift + edit.at
            if edit.removed:
                self._tokens.delete(at, at + edit.removed)
            if edit.added:
                self._tokens.insert(at, ids[edit.start : edit.stop], True)
        if round_.before != self._before:
            self._tokens.delete(0, shift)
            self._tokens.insert(0, torch.tensor(round_.before, dtype=torch.int32), True)
            self._before = round_.before
        every = standing_for(self._tokens, self.projections.config)
        part = Part(every, len(self._before), round_.length, round_.total)
        self.place(part, round_.start)

    @property
    def nbytes(self) -> int:
        return super().nbytes + self._tokens.nbytes


@dataclass(frozen=True)
class Round:
    """What a rank is told of one round: which context, by its number, in which layout; how long it
    is; where the rank's stretch begins and how long that is; the tokens that the last position's
    initial state sees, and those before the stretch that its first position's does."""

    context: int
    layout: str
    total: int
    start: int
    length: int
    last: tuple[int, ...]
    before: tuple[int, ...]

    def numbers(self) -> tuple[int, ...]:
        """As the first numbers of a message."""
        layout = list(LAYOUTS).index(self.layout)
        sizes = (self.total, self.start, self.length, len(self.last), len(self.before))
        return (Kind.STEP, self.context, layout, *sizes, *self.last, *self.before)

    @classmethod
    def heard(cls, group: Group, numbers: Sequence[int]) -> tuple[Round, list[Edit], Tensor]:
        """From a message of ``Leading``, with the edits and the ids that come with it."""
        _, context, layout, total, start, length, last, before, *rest = numbers
        ids, (many, new) = rest[: last + before], rest[last + before :][:2]
        round_ = cls(
            context,
            list(LAYOUTS)[layout],
            total,
            start,
            length,
            tuple(ids[:last]),
            tuple(ids[last:]),
        )
        edits, done = [], 0
        for at, removed, added in group.receive((many, 3), torch.int64).tolist():
            edits.append(Edit(at, removed, done, done + added))
            done += added
        return round_, edits, group.receive((new,), torch.int32)


def _ids(tokens: Tokens, start: int, stop: int, config: ModelConfig) -> Tensor:
    """(stop - start, w) of each position its token and those before it; -1: there is none."""
    return grams(tokens.slice(start, stop), config)


def _known(row: Tensor) -> tuple[int, ...]:
    """Tokens of one position or none (.., n), nearest last."""
    return tuple(token for token in reversed(row.flatten().tolist()) if token >= 0)
