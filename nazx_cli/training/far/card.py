"""The card of a far memory: what it was taught by, how, and what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.training.licences import licence_of
from nazx_cli.training.state import Counters

if TYPE_CHECKING:
    from nazx_cli.training.far.settings import FarSettings

_OF = {
    "without": "without the memory",
    "own": "with it, of the same text",
    "other": "with it, of another text",
}
_KINDS: Mapping[str, Callable[[FarSettings, str], str]] = {
    "inattention": lambda asked, what: (
        f"a copying head over {what}, rank {asked.rank}, keys of {asked.window} tokens and of "
        f"{asked.around} to each side"
    ),
    "infini": lambda asked, what: (
        f"a compressive memory of {what} in every layer, update {asked.update}, read "
        f"{asked.segment} tokens at a time, with additions to q, k and v of rank {asked.rank}"
    ),
}

_READ: Mapping[str, Callable[[FarSettings], str]] = {
    "inattention": lambda asked: "live windows of 512 to 2,048 tokens",
    "infini": lambda asked: f"segments of {asked.segment:,} tokens",
}


def card(
    settings: FarSettings, counters: Counters, figures: Mapping[str, float], texts: int
) -> str:
    """Markdown with data (licence file beside it), settings and held-out figures."""
    schedule = settings.schedule
    what = "the live text alone, as a control" if settings.live else "what stands before the window"
    lines = [
        f"# Far memory of {settings.model}",
        "",
        f"Made by `nazx tune --far {settings.far}`: {_KINDS[settings.far](settings, what)}. The "
        "model's own weights stay as they are.",
        f"{counters.step:,} steps, {counters.tokens:,} positions, {counters.seconds / 60:.0f} "
        f"minutes; {schedule.batch_tokens:,} positions a step, learning rate {schedule.rate:g}, "
        f"seed {schedule.seed}.",
        "",
        "## Data",
        "",
        "| source | licence |",
        "|---|---|",
        *(f"| {Path(each).name} | {licence_of(Path(each))} |" for each in settings.sources),
        "",
        "## Held out",
        "",
        f"One text in {settings.held_share} ({texts}); losses in nats a token, "
        f"{_READ[settings.far](settings)}.",
        "",
        "| | loss |",
        "|---|---|",
        *(f"| {_OF[name]} | {loss:.4f} |" for name, loss in figures.items()),
        "",
    ]
    return "\n".join(lines)
