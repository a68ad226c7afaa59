"""The card of an adapter: what it was trained on, how, for how long, and with what figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.checkpoint.adapters.folder import WEIGHTS_FILE
from nazx_cli.checkpoint.atomic import sha256_of
from nazx_cli.training.licences import licence_in
from nazx_cli.training.state import Counters, read_log

if TYPE_CHECKING:
    from nazx_cli.training.tuning.run import RunSettings


def card(settings: RunSettings, counters: Counters, folder: Path) -> str:
    """Markdown with the data (name, times, hash, licence file beside it), settings and figures."""
    lora, schedule = settings.lora, settings.schedule
    size = f"rank {lora.rank}, alpha {lora.alpha:g}" if lora else "all weights"
    length = f"{counters.step:,} steps, {counters.tokens:,} tokens"
    lines = [
        f"# Adapter of {settings.model}",
        "",
        f"Made by `nazx tune`: {size}; {length}, {counters.seconds / 60:.0f} minutes.",
        *_kept(counters),
        *_begun(settings.start),
        f"Learning rate {schedule.rate:g}, {schedule.batch_tokens:,} tokens a step, "
        f"seed {schedule.seed}.",
        "",
        "## Data",
        "",
        "| file | times | SHA-256 | licence |",
        "|---|---|---|---|",
        *(_source_line(source.path, source.times) for source in settings.sources),
        "",
        "## Held out",
        "",
        f"One document in {settings.held_share}. Loss is weighted as in training.",
        "",
        "| step | loss | F1, section given |",
        "|---|---|---|",
        *_figures(folder),
        "",
    ]
    return "\n".join(lines)


def _kept(counters: Counters) -> list[str]:
    if counters.best_step == counters.step or not counters.best_step:
        return []
    loss = f"{counters.best:.4f}"
    return [
        f"The parameters are those of step {counters.best_step:,}, whose held-out loss is {loss}."
    ]


def _begun(start: Sequence[str]) -> list[str]:
    if not start:
        return []
    files = [Path(each) / WEIGHTS_FILE for each in start]
    hashes = [sha256_of(file)[:16] if file.is_file() else "gone" for file in files]
    mean = "the mean of those" if len(start) > 1 else "that"
    return [f"It began from {mean} with SHA-256 {', '.join(hashes)}."]


def _source_line(path: Path, times: float) -> str:
    known = path.is_file()
    digest = sha256_of(path)[:16] if known else "gone"
    licence = licence_in(path.parent) if known else "not known here"
    return f"| {path.name} | {times:g} | {digest} | {licence} |"


def _figures(folder: Path) -> list[str]:
    checks = [line for line in read_log(folder) if "held_out" in line]
    shown = checks if len(checks) <= 12 else [*checks[:: len(checks) // 10 or 1], checks[-1]]
    return [f"| {c['step']:,} | {c['held_out']:.4f} | {c.get('f1', '')} |" for c in shown]
