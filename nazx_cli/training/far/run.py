"""Runs of ``nazx tune --far``: a far memory in a folder of its own.

far.json           what was asked for
texts/             what it is taught by: see ``texts``
state.safetensors  where it is; best.safetensors: the best parameters so far
log.jsonl          a line a step and a line a check
adapter/           what comes of it
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nazx_cli.checkpoint.adapters.far import write_far_adapter
from nazx_cli.checkpoint.atomic import explained
from nazx_cli.checkpoint.write import to_json
from nazx_cli.config import AttentionConfig, with_far
from nazx_cli.errors import UsageError
from nazx_cli.model.far.inattention import FarInAttention, standardized, summed
from nazx_cli.training.far.card import card
from nazx_cli.training.far.mixture import mixture_loss
from nazx_cli.training.far.texts import (
    FAR,
    PIECE,
    Piece,
    Text,
    collect,
    count_positions,
    pieces,
    read_texts,
)
from nazx_cli.training.state import load_best, notes_on, read_asked
from nazx_cli.training.trainer import OnProgress, Schedule, Trainer, held_out_loss

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel

ASKED_FILE = "far.json"
_PASSES = 4  # over the texts, before the same pieces come again
_STRANGE = 0.15
_BEGIN = (6.0, 4.0, 3.0, 2.0)  # scores of the same token, at each distance
_REFUSAL = (9.4, 0.5)  # with twice as many positions about half as much more is found by chance
_HELD = 48  # pieces that are held out


@dataclass(frozen=True)
class FarSettings:
    """What was asked for.

    model, revision  the base, by the name that it is loaded by
    sources          files, folders and globs of long texts
    rank, window     of the memory: see ``model.far.inattention``
    around           likewise
    live             remembers nothing but the live text, as a control
    epochs           passes over the texts, where the schedule has no steps or minutes
    """

    model: str
    sources: tuple[str, ...]
    schedule: Schedule = field(default_factory=Schedule)
    revision: str | None = None
    rank: int = 32
    window: int = 4
    around: int = 32
    live: bool = False
    held_share: int = 16
    epochs: float = 1.0
    device: str = "auto"
    dtype: str = "auto"

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FarSettings:
        """From ``far.json``; ``KeyError`` or ``TypeError`` where it is broken."""
        values = {**data, "schedule": Schedule(**data["schedule"])}
        return cls(**{**values, "sources": tuple(data["sources"])})


def prepare(
    out: Path,
    settings: FarSettings,
    lm: LanguageModel,
    on_progress: Callable[[int, int], None] | None = None,
) -> FarSettings:
    """Run the texts through the model; the settings with what was left open filled in. What was
    run before it was stopped is not run again.

    ``UsageError`` where ``out`` holds a run already, the model has no window, or no text is long
    enough.
    """
    if (out / ASKED_FILE).exists():
        raise UsageError(
            f"{out} holds a run already",
            f"go on with it: nazx tune --far inattention --resume --out {out}",
        )
    if lm.config.attention.kind != "windowed":
        raise UsageError(
            "a far memory stands beside a window, and this model has none", "use another"
        )
    collect(lm, settings.sources, out / "texts", settings.held_share, on_progress)
    tokens = count_positions(out / "texts", "train")
    if not tokens:
        raise UsageError("no text is long enough to teach a far memory by", "name whole books")
    schedule = settings.schedule.lasting(settings.epochs * tokens)
    settings = replace(settings, schedule=schedule)
    with explained(out):
        (out / ASKED_FILE).write_bytes(to_json(asdict(settings)))  # last: now it is whole
    return settings


def read_settings(out: Path) -> FarSettings:
    """What the run in ``out`` was asked for; ``UsageError`` where there is none."""
    return read_asked(out / ASKED_FILE, FarSettings.from_json)


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


class FarRun:
    """One memory, from where it is to its end."""

    def __init__(self, out: Path, settings: FarSettings, lm: LanguageModel) -> None:
        self.out, self.settings, self.lm = out, settings, lm
        self.config = replace(lm.config, attention=self._attention())
        memory = _new_memory(FarInAttention(self.config), settings.schedule.seed).to(lm.device)
        embedding = lm.decoder.embed(torch.arange(lm.config.vocab_size)).to(lm.device)
        train, held = (read_texts(out / "texts", kind) for kind in ("train", "held"))
        rng = random.Random(settings.schedule.seed)
        items = list(pieces(train, rng, passes=_PASSES, strange=0 if settings.live else _STRANGE))
        self._texts = [*train, *held]
        self._held = _held_pieces(self._texts, len(train))
        self.engine = OnPieces(memory, embedding, self._texts, settings.live)
        self.trainer = Trainer[Piece](self.engine, items, self._held, settings.schedule, out)

    def _attention(self) -> AttentionConfig:
        asked = self.settings
        sizes = {"far_rank": asked.rank, "far_window": asked.window, "far_around": asked.around}
        return with_far(self.lm.config.attention, {"far": "inattention", **sizes})

    def go(self, on_progress: OnProgress | None = None) -> None:
        """Train to the end."""
        flushed = torch.set_flush_denormal(True)  # weights of what is far off, in great numbers
        try:
            self.trainer.run(on_progress)
        finally:
            if flushed:
                torch.set_flush_denormal(False)

    def figures(self) -> dict[str, float]:
        """Held-out losses in nats: of the model alone (``without``), with the memory of its own
        text (``own``) and with that of another (``other``)."""
        if not self._held:
            return {}
        tokens = sum(piece.count for piece in self._held)
        alone = sum(float(self._texts[p.text].own[p.at : p.at + p.count].sum()) for p in self._held)
        found = {"without": -alone / tokens, "own": held_out_loss(self.engine, self._held)}
        texts = sorted({piece.text for piece in self._held})
        if len(texts) > 1:
            after = dict(zip(texts, [*texts[1:], texts[0]], strict=True))
            others = [replace(piece, other=after[piece.text]) for piece in self._held]
            found["other"] = held_out_loss(self.engine, others)
        return found

    def export(self) -> tuple[Path, dict[str, float]]:
        """Write the best parameters so far as an adapter; its folder and its ``figures``."""
        load_best(self.out, self.engine.parameters)
        figures = self.figures()
        made = FarInAttention(self.config)
        made.load_state_dict(self.engine.memory.state_dict())
        with torch.no_grad():
            for part in (made.state, made.null):
                part.div_(math.sqrt(self.config.hidden_size))
        counters = self.trainer.counters
        notes = notes_on(self.settings.model, self.lm.folder, counters)
        folder = self.out / "adapter"
        write_far_adapter(
            folder,
            self.config.attention,
            made,
            base=self.settings.model,
            notes={**notes, "held_out": figures},
            card=card(self.settings, counters, figures, len({p.text for p in self._held})),
        )
        return folder, figures


def _held_pieces(texts: Sequence[Text], first: int) -> list[Piece]:
    """Pieces from the whole of all texts from the ``first`` on, with all that is far of each."""
    every = [
        Piece(number, at, min(PIECE, len(texts[number].own) - at), FAR)
        for number in range(first, len(texts))
        for at in range(0, len(texts[number].own), PIECE)
    ]
    return every[:: max(1, len(every) // _HELD)]


def _new_memory(memory: FarInAttention, seed: int) -> FarInAttention:
    """A memory that begins by comparing tokens: the same ones have the highest scores."""
    generator = torch.Generator().manual_seed(seed)
    parts, rank, size = memory.keys.shape
    begin = torch.zeros(parts)  # what is around tells nothing yet
    begin[: memory.taps] = torch.tensor([*_BEGIN, *[_BEGIN[-1]] * parts][: memory.taps])
    with torch.no_grad():
        matrices = torch.randn(parts, rank, size, generator=generator) / math.sqrt(size)
        memory.keys.copy_(matrices)
        memory.queries.copy_(matrices * (begin / math.sqrt(rank)).view(parts, 1, 1))
        memory.state.zero_()
        memory.null.zero_()
        memory.bias.copy_(torch.tensor(_REFUSAL))
    return memory
