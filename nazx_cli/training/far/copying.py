"""Teaching a far memory by InAttention: a copying head over what the model makes of a text."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nazx_cli.model.far.inattention import FarInAttention, standardized, summed
from nazx_cli.training.far.lesson import Lesson
from nazx_cli.training.far.mixture import mixture_loss
from nazx_cli.training.far.settings import FarSettings
from nazx_cli.training.far.texts import FAR, PIECE, Piece, Text, pieces, read_texts, run_stretch

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel

_PASSES = 4  # over the texts, before the same pieces come again
_STRANGE = 0.15
_SCORES = (6.0, 4.0, 3.0, 2.0)  # of the same token at the beginning, at each distance
_REFUSAL = (9.4, 0.5)  # with twice as many positions about half as much more is found by chance
_HELD = 48  # pieces that are held out


class CopyingLesson(Lesson):
    """The final states of a text are kept with it: a step then takes a moment."""

    learnt = "own"

    def __init__(self, settings: FarSettings, lm: LanguageModel, folder: Path) -> None:
        super().__init__(settings, lm, folder)
        self._memory = FarInAttention(self.config).to(lm.device)
        _begin(self._memory, settings.schedule.seed)
        embedding = lm.decoder.embed(torch.arange(lm.config.vocab_size)).to(lm.device)
        train, held = (read_texts(folder, kind) for kind in ("train", "held"))
        rng, strange = random.Random(settings.schedule.seed), 0 if settings.live else _STRANGE
        self.train = list(pieces(train, rng, passes=_PASSES, strange=strange))
        self._texts = [*train, *held]
        self.held = _held_pieces(self._texts, len(train))
        self.engine = OnPieces(self._memory, embedding, self._texts, settings.live)

    @staticmethod
    def kept(
        settings: FarSettings, lm: LanguageModel, ids: Tensor, number: int
    ) -> dict[str, Tensor]:
        return run_stretch(lm, ids, number)

    def alone(self) -> float:
        rows = ((self._texts[p.text].own, slice(p.at, p.at + p.count)) for p in self.held)
        return -float(torch.cat([own[part] for own, part in rows]).mean())

    def made(self) -> FarInAttention:
        made = FarInAttention(self.config)
        made.load_state_dict(self._memory.state_dict())
        with torch.no_grad():
            for part in (made.state, made.null):
                part.div_(math.sqrt(self.config.hidden_size))
        return made


class OnPieces:
    """An engine of the trainer's: a far memory, over the texts that pieces are of.

    While it is taught, states have the length 1 and not sqrt(C), so that what meets them learns at
    the pace of what meets embeddings.
    """

    def __init__(
        self, memory: FarInAttention, embedding: Tensor, texts: Sequence[Text], live: bool
    ) -> None:
        self.memory, self._texts, self._live = memory, texts, live
        self._embedding = standardized(embedding)
        self.parameters: list[nn.Parameter] = list(memory.parameters())

    def refresh(self) -> None:
        """See ``trainer.Engine``."""

    def loss(self, item: Piece, scale: float | None) -> float:
        """See ``trainer.Engine``."""
        with torch.set_grad_enabled(scale is not None):
            total = self.losses(item).sum()
            if scale is not None:
                (total * scale).backward()  # type: ignore[no-untyped-call]
        return float(total.detach())

    def losses(self, item: Piece) -> Tensor:
        """(count,) losses in nats of the tokens after the positions of ``item``."""
        text, memory, device = self._texts[item.text], self.memory, self._embedding.device
        rows = slice(item.at, item.at + item.count)
        ids = text.ids.to(device, torch.int64)
        first = text.start + item.at
        begin = text.start + item.at // text.window * text.window  # of the block
        stop = first + item.count
        if self._live:
            far, seen = ids[begin:stop], torch.arange(first - begin, stop - begin, device=device)
        else:
            source, end = (text.ids, begin) if item.other is None else self._strange(item.other)
            far = source[max(0, end - item.far) : end].to(device, torch.int64)
            seen = torch.full((item.count,), len(far) - 1, device=device)
        states = standardized(text.states[rows].to(device)) / math.sqrt(text.states.shape[1])
        grams = memory.grams(ids[begin:stop])[first - begin :]
        known = self._embedding[grams.clamp(min=0)] * (grams >= 0).unsqueeze(-1)
        q = memory.query_parts(known, states).flatten(1)
        right = far[1:] == ids[first + 1 : stop + 1].unsqueeze(1)
        own = text.own[rows].to(device)
        refusal = memory.refusal(states, len(far))
        return mixture_loss(q, self._keys(far), refusal, own, right, seen)

    def _strange(self, number: int) -> tuple[Tensor, int]:
        text = self._texts[number]
        return text.ids, text.start

    def _keys(self, far: Tensor) -> Tensor:
        """(N - 1, D) of far ids (N,): each position's key, its parts side by side."""
        memory, count = self.memory, len(far) - 1
        distinct, at = torch.unique(far, return_inverse=True)
        parts = memory.key_parts(self._embedding[distinct])
        rows = []
        for back, part in enumerate(parts[: memory.taps]):
            known = part[at[: max(0, count - back)]]
            rows.append(nn.functional.pad(known, (0, 0, count - len(known), 0)))
        if around := memory.around:
            # Live text ends at each position: there is nothing around it but what is before.
            late = around if self._live else 0
            every = nn.functional.pad(parts[-1][at], (0, 0, late, 0))
            rows.append(summed(every, around)[:count])
        return torch.cat(rows, 1)


def _held_pieces(texts: Sequence[Text], first: int) -> list[Piece]:
    """Pieces from the whole of all texts from the ``first`` on, with all that is far of each."""
    every = [
        Piece(number, at, min(PIECE, len(texts[number].own) - at), FAR)
        for number in range(first, len(texts))
        for at in range(0, len(texts[number].own), PIECE)
    ]
    return every[:: max(1, len(every) // _HELD)]


def _begin(memory: FarInAttention, seed: int) -> None:
    """Begin by comparing tokens: the same ones have the highest scores."""
    generator = torch.Generator().manual_seed(seed)
    parts, rank, size = memory.keys.shape
    begin = torch.zeros(parts)  # what is around tells nothing yet
    begin[: memory.taps] = torch.tensor([*_SCORES, *[_SCORES[-1]] * parts][: memory.taps])
    with torch.no_grad():
        matrices = torch.randn(parts, rank, size, generator=generator) / math.sqrt(size)
        memory.keys.copy_(matrices)
        memory.queries.copy_(matrices * (begin / math.sqrt(rank)).view(parts, 1, 1))
        memory.state.zero_()
        memory.null.zero_()
        memory.bias.copy_(torch.tensor(_REFUSAL))
