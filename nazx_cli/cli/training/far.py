"""``nazx tune --far``: a far memory, taught by long texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

from nazx_cli.cli.shared.options import count_option, option
from nazx_cli.cli.training.base import load_base
from nazx_cli.cli.training.length import teller
from nazx_cli.names import FAR_MEMORIES, FAR_UPDATES

if TYPE_CHECKING:
    from nazx_cli.cli.shared.options import Report
    from nazx_cli.training.far.settings import FarSettings


@dataclass(frozen=True)
class FarOptions:
    """What the memory is."""

    far: Annotated[
        str | None,
        option(
            "--far",
            "Teach a far memory by long texts, not an adapter by questions.",
            choices=FAR_MEMORIES,
        ),
    ] = None
    far_rank: Annotated[
        int, count_option("--far-rank", "Rank of what the memory learns.", least=0)
    ] = 32
    far_window: Annotated[
        int, count_option("--far-window", "Tokens that a key knows in their order.")
    ] = 4
    far_around: Annotated[
        int, count_option("--far-around", "And how many to each side, without order.", least=0)
    ] = 32
    far_segment: Annotated[
        int, count_option("--far-segment", "Tokens that infini reads at a time.", least=16)
    ] = 512
    far_update: Annotated[
        str,
        option("--far-update", "How infini stores what it reads.", choices=FAR_UPDATES),
    ] = "linear"
    far_control: Annotated[
        bool,
        option("--far-control", "Remember the live text alone: what far text must be better than."),
    ] = False


def is_far_run(out: Path) -> bool:
    """Whether ``out`` is the folder of such a run."""
    from nazx_cli.training.far.settings import ASKED_FILE

    return (out / ASKED_FILE).is_file()


def tune_far(
    out: Path, asked: FarSettings | None, report: Report, *, offline: bool, export: bool
) -> None:
    """Begin what is ``asked`` for, or go on with what is in ``out``."""
    from nazx_cli.training.far.run import FarRun, prepare
    from nazx_cli.training.far.settings import read_settings

    settings = asked or read_settings(out)
    lm = load_base(settings, report, offline)
    try:
        if asked is not None:
            with report.progress("running the texts through the model") as update:
                settings = prepare(out, settings, lm, update)
        run = FarRun(out, settings, lm)
        if not export:
            with report.progress("tuning") as update:
                run.go(teller(update))
        with report.progress("measuring on the texts that are held out") as update:
            made, figures = run.export(update)
    except KeyboardInterrupt:
        resume = f"nazx tune --resume --out {quote(str(out))}"
        command = resume if is_far_run(out) else "the same command"
        report.tell({}, note=f"stopped; go on with: {command}")
        raise
    counters = run.trainer.counters
    held = ", ".join(f"{name} {loss:.4f}" for name, loss in figures.items())
    facts = {
        "path": str(made),
        "steps": counters.step,
        "tokens": counters.tokens,
        "seconds": round(counters.seconds, 1),
        "held_out": figures,
    }
    line = f"{made} is ready: {counters.step:,} steps; held-out losses: {held or 'not measured'}"
    use = f"-m {quote(settings.model)} --adapter {quote(str(made))} --read resident"
    report.tell(facts, line, note=f"try: nazx ask {use} --file book.txt QUESTION")
