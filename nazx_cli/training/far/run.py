"""Runs of ``nazx tune --far``: a far memory in a folder of its own.

far.json           what was asked for
texts/             what it is taught by: see ``texts``
state.safetensors  where it is; best.safetensors: the best parameters so far
log.jsonl          a line a step and a line a check
adapter/           what comes of it
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nazx_cli.checkpoint.adapters.far import write_far_adapter
from nazx_cli.context.cost import far_state_bytes
from nazx_cli.errors import UsageError
from nazx_cli.training.far.card import card
from nazx_cli.training.far.compressing import CompressiveLesson
from nazx_cli.training.far.copying import CopyingLesson
from nazx_cli.training.far.lesson import Lesson
from nazx_cli.training.far.settings import ASKED_FILE, FarSettings
from nazx_cli.training.far.texts import Piece, collect, count_positions
from nazx_cli.training.state import check_new, notes_on, write_asked
from nazx_cli.training.trainer import OnProgress, Trainer, held_out_loss

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel

_LESSONS: dict[str, type[Lesson]] = {
    "inattention": CopyingLesson,
    "infini": CompressiveLesson,
}


def prepare(
    out: Path,
    settings: FarSettings,
    lm: LanguageModel,
    on_progress: Callable[[int, int], None] | None = None,
) -> FarSettings:
    """Make of the texts what the memory is taught by; the settings with what was left open filled
    in. What was made before it was stopped is not made again.

    ``UsageError`` where ``out`` holds a run already, the model has no window, or no text is long
    enough.
    """
    check_new(out / ASKED_FILE, "nazx tune")
    if lm.config.attention.kind != "windowed":
        raise UsageError(
            "a far memory stands beside a window, and this model has none", "use another"
        )
    texts, lesson = out / "texts", _LESSONS[settings.far]
    kept = partial(lesson.kept, settings, lm)
    collect(lm, settings.sources, texts, settings.held_share, kept, on_progress)
    tokens = count_positions(texts, "train", lesson.learnt)
    if not tokens:
        raise UsageError("no text is long enough to teach a far memory by", "name whole books")
    schedule = settings.schedule.lasting(settings.epochs * tokens)
    settings = replace(settings, schedule=schedule)
    write_asked(out / ASKED_FILE, asdict(settings))
    return settings


class FarRun:
    """One memory, from where it is to its end."""

    def __init__(self, out: Path, settings: FarSettings, lm: LanguageModel) -> None:
        self.out, self.settings, self.lm = out, settings, lm
        made = self._lesson = _LESSONS[settings.far](settings, lm, out / "texts")
        self.trainer = Trainer[Piece](
            *(made.engine, made.train, made.held, settings.schedule, out), paces=made.paces
        )

    def go(self, on_progress: OnProgress | None = None) -> None:
        """Train to the end."""
        flushed = torch.set_flush_denormal(True)  # weights of what is far off, in great numbers
        try:
            self.trainer.run(on_progress)
        finally:
            if flushed:
                torch.set_flush_denormal(False)

    def figures(
        self, on_progress: Callable[[int, int], None] = lambda done, of: None
    ) -> dict[str, float]:
        """Held-out losses in nats: of the model alone (``without``), with the memory of its own
        text (``own``) and with that of another (``other``). ``on_progress`` is told how many
        losses of pieces are known, and of how many."""
        engine, held = self._lesson.engine, self._lesson.held
        if not held:
            return {}
        asked = {"own": list(held)}
        texts = sorted({item.text for item in held})
        if len(texts) > 1:
            after = dict(zip(texts, [*texts[1:], texts[0]], strict=True))
            asked["other"] = [replace(item, other=after[item.text]) for item in held]
        done, every = count(len(held) + 1), len(held) * (1 + len(asked))
        on_progress(0, every)
        found = {"without": self._lesson.alone()}
        for name, items in asked.items():
            found[name] = held_out_loss(
                engine, items, on_item=lambda: on_progress(next(done), every)
            )
        return found

    def export(
        self, on_progress: Callable[[int, int], None] = lambda done, of: None
    ) -> tuple[Path, dict[str, float]]:
        """Write the best parameters so far as an adapter; its folder and its ``figures``, which
        take a while."""
        self.trainer.take_best()
        figures = self.figures(on_progress)
        counters, config = self.trainer.counters, self._lesson.config
        notes = notes_on(self.settings.model, self.lm.folder, counters)
        folder = self.out / "adapter"
        texts = len({item.text for item in self._lesson.held})
        write_far_adapter(
            folder,
            config.attention,
            self._lesson.made(),
            base=self.settings.model,
            notes={**notes, "state_bytes": far_state_bytes(config), "held_out": figures},
            card=card(self.settings, counters, figures, texts),
        )
        return folder, figures
