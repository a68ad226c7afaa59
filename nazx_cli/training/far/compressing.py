"""Teaching a compressive memory: consecutive segments of a text, the state carried on.

Some segments are read first, as the memory is now and without gradients; then a few are learnt
from. Gradients go back through what the segments of a piece stored, ``_THROUGH`` of them together.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nazx_cli.model.attention.windowed import Windowed
from nazx_cli.model.far.base import Beside
from nazx_cli.model.far.infini import FarInfini
from nazx_cli.training.far.lesson import Lesson
from nazx_cli.training.far.settings import FarSettings
from nazx_cli.training.far.texts import FAR, STRETCH, Piece, read_kept

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel

_LEARNT = 4  # segments of a piece
_THROUGH = 2  # segments that gradients go back through
_BEFORE = 8  # segments that are read before it, at most
_PART = 256  # positions of a segment whose weights to each other are held together
_GATE = -4.0  # the memory has 2 % at the beginning
_PACE = 30.0  # of the gates, to that of all else
_HELD, _HELD_BEFORE, _HELD_LEARNT = 5, 6, 2  # pieces that are held out, and their segments


class CompressiveLesson(Lesson):
    """Nothing but token ids is kept of a text: what the layers hold depends on the memory."""

    learnt = "ids"

    def __init__(self, settings: FarSettings, lm: LanguageModel, folder: Path) -> None:
        super().__init__(settings, lm, folder)
        assert isinstance(lm.attention, Windowed), "looked at before"
        self._memory = FarInfini(self.config).to(lm.device)
        _begin(self._memory, settings.schedule.seed)
        self.paces = [(self._memory.gates, _PACE)]
        train, held = (
            [tensors["ids"] for _, tensors in read_kept(folder, kind)] for kind in ("train", "held")
        )
        rng, segment = random.Random(settings.schedule.seed), settings.segment
        self.train = list(runs(train, segment, rng))
        self.held = list(_held_runs(held, segment, len(train)))
        texts = [*train, *held]
        self.engine: OnRuns = OnRuns(self._memory, lm.attention, texts, settings.live)

    @staticmethod
    def kept(
        settings: FarSettings, lm: LanguageModel, ids: Tensor, number: int
    ) -> dict[str, Tensor]:
        return {"ids": ids[: FAR + STRETCH + 1].to(torch.int32).contiguous()}

    def alone(self) -> float:
        total = sum(item.count for item in self.held)
        return sum(self.engine.plainly(item) for item in self.held) / total

    def made(self) -> FarInfini:
        return self._memory


class OnRuns:
    """An engine of the trainer's: a memory beside a model, over the texts that runs are of.

    With ``live`` nothing is stored, and a position retrieves from those before it in its own
    segment: what the additions and the gates are worth without far text.
    """

    def __init__(
        self, memory: FarInfini, attention: Windowed, texts: Sequence[Tensor], live: bool
    ) -> None:
        self._memory, self._attention, self._texts = memory, attention, texts
        self._live = live
        self._segment = memory.config.attention.far_segment
        self.parameters: list[nn.Parameter] = list(memory.parameters())

    def refresh(self) -> None:
        """See ``trainer.Engine``."""

    def loss(self, item: Piece, scale: float | None) -> float:
        """See ``trainer.Engine``."""
        with torch.no_grad():
            state = None if self._live else self._read(self._before(item))
        found = 0.0
        for ids, wanted in self._pieces(item, self._segment * _THROUGH):
            with torch.set_grad_enabled(scale is not None):
                total, state = self._losses(ids, wanted, state)
                if scale is not None:
                    (total * scale).backward()  # type: ignore[no-untyped-call]
            state = None if state is None else state.detach()
            found += float(total.detach())
        return found

    @torch.no_grad()
    def plainly(self, item: Piece) -> float:
        """The sum of the item's losses without a memory."""
        pieces = self._pieces(item, self._segment)
        return sum(float(self._loss(ids, wanted, None)) for ids, wanted in pieces)

    def _losses(
        self, ids: Tensor, wanted: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The sum of the losses of some segments, and the state after them."""
        total = torch.zeros((), device=ids.device)
        for part, right in _cut(ids, wanted, self._segment):
            if self._live:
                total = total + self._loss(part, right, _OfItsOwn(self._memory))
                continue
            reading = self._memory.reading(state)
            total = total + self._loss(part, right, reading)
            state = reading.after
        return total, state

    def _loss(self, ids: Tensor, wanted: Tensor, beside: Beside | None) -> Tensor:
        """The sum of the losses of one segment, whose next tokens are ``wanted``."""
        logits = self._attention.decoder.logits(self._attention.sequence(ids, beside))
        return F.cross_entropy(logits, wanted, reduction="sum")

    def _read(self, ids: Tensor) -> Tensor | None:
        state = None
        for part in torch.split(ids, self._segment) if len(ids) else ():
            reading = self._memory.reading(state)
            self._attention.sequence(part, reading)
            state = reading.after
        return state

    def _before(self, item: Piece) -> Tensor:
        if item.other is None:
            return self._ids(item.text)[item.at - item.far : item.at]
        return self._ids(item.other)[: item.far]

    def _pieces(self, item: Piece, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Tokens and those after them, ``size`` at a time."""
        ids = self._ids(item.text)[item.at : item.at + item.count + 1]
        return _cut(ids[:-1], ids[1:], size)

    def _ids(self, text: int) -> Tensor:
        return self._texts[text].to(self._attention.decoder.device, torch.int64)


def _cut(ids: Tensor, wanted: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(ids, size), torch.split(wanted, size), strict=True)


class _OfItsOwn:
    """Linear attention of each position to those before it, and itself, in its own segment: as from
    a memory that stores after every token; see ``model.far.base.Beside``."""

    def __init__(self, memory: FarInfini) -> None:
        self._memory = memory

    def __call__(self, layer: int, a: Tensor, qk: Tensor, v: Tensor, attended: Tensor) -> Tensor:
        found = of_those_before(*self._memory.projected(layer, a, qk, v))
        return self._memory.gated(layer, found, attended)


def of_those_before(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(kv_heads, group * T, D): what each of sigma(q) (kv_heads, group * T, D) finds in sigma(k)
    and v (kv_heads, T, D) up to its own position; part after part of T, so that what is held grows
    with T and not with its square."""
    state = k.new_zeros(len(k), 1, k.shape[2], v.shape[2] + 1)  # of all parts before
    stored = F.pad(v, (0, 1), value=1.0)
    found = []
    groups = q.view(len(k), -1, *k.shape[1:])
    parts = (torch.split(groups, _PART, 2), torch.split(k, _PART, 1), torch.split(stored, _PART, 1))
    for queries, keys, values in zip(*parts, strict=True):
        turned, values = keys.unsqueeze(1).transpose(2, 3), values.unsqueeze(1)
        sums = (queries @ turned).tril() @ values + queries @ state
        found.append(sums[..., :-1] / sums[..., -1:])
        state = state + turned @ values
    return torch.cat(found, 2).flatten(1, 2)


def runs(texts: Sequence[Tensor], segment: int, rng: random.Random) -> Iterator[Piece]:
    """All whole segments of the texts, a few together, with memories of different lengths."""
    for number, ids in enumerate(texts):
        whole = (len(ids) - 1) // segment
        for first in range(0, whole, _LEARNT):
            count = min(_LEARNT, whole - first)
            before = min(first, int((_BEFORE + 1) ** rng.random()))
            yield Piece(number, first * segment, count * segment, before * segment)


def _held_runs(texts: Sequence[Tensor], segment: int, first: int) -> Iterator[Piece]:
    """The end of some of the texts, which have the numbers from ``first`` on."""
    for at, ids in enumerate(texts[:_HELD]):
        whole = (len(ids) - 1) // segment
        count = min(_HELD_LEARNT, whole)
        before = min(_HELD_BEFORE, whole - count)
        if count:
            begin = (whole - count) * segment
            yield Piece(first + at, begin, count * segment, before * segment)


def _begin(memory: FarInfini, seed: int) -> None:
    """Begin with what the layers have themselves, and next to nothing of it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        memory.gates.fill_(_GATE)
        memory.down.copy_(torch.randn(memory.down.shape, generator=generator))
        memory.down.div_(memory.down.shape[-1] ** 0.5)
        for each in (memory.query, memory.key, memory.value):
            each.zero_()
