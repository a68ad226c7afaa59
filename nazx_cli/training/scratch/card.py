"""The card of a model made by ``nazx train``: its shape, its data, and how it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.config import ModelConfig
from nazx_cli.training.scratch.corpus import read_notes
from nazx_cli.training.scratch.recall import describe
from nazx_cli.training.state import Counters

if TYPE_CHECKING:
    from nazx_cli.training.scratch.run import Plan, TrainSettings


def card(
    settings: TrainSettings, plan: Plan, counters: Counters, config: ModelConfig, corpus: Path
) -> str:
    """Markdown with shape, data (hash, licence file beside it), settings and held-out loss."""
    schedule = settings.schedule
    begun = f"from {Path(settings.start).name}" if settings.start else "from random weights"
    held = f"{counters.best:.4f} nats a token, at step {counters.best_step:,}"
    lines = [
        f"# {plan.name}",
        "",
        f"Made by `nazx train`, {begun}: {config.num_parameters:,} weights, {config.num_layers} "
        f"layers of {config.hidden_size} features, {plan.attention} attention, "
        f"{settings.shape.context:,} tokens of context.",
        "",
        f"{counters.step:,} steps, {counters.tokens:,} tokens, {counters.seconds / 60:.0f} "
        f"minutes; {schedule.batch_tokens:,} tokens a step, learning rate {schedule.rate:g}, "
        f"weight decay {schedule.decay:g}, seed {plan.seed}.",
        f"Held-out loss: {held if counters.best_step else 'not measured'}. One document in "
        f"{settings.held_share} was held out, of long ones the last part.",
        "",
        *_of_recall(settings),
        "![Losses](loss.svg)",
        "",
        "## Data",
        "",
        "| source | files | characters | SHA-256 | licence |",
        "|---|---|---|---|---|",
        *(
            f"| {note.name} | {note.files:,} | {note.characters:,} | {note.sha256[:16]} "
            f"| {note.licence} |"
            for note in read_notes(corpus)
        ),
        "",
    ]
    return "\n".join(lines)


def _of_recall(settings: TrainSettings) -> list[str]:
    return [describe(settings.recall), ""] if settings.recall else []
