"""What ``nazx tune`` and ``nazx train`` share: how long and how often, and telling how it goes and
how it goes on."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Annotated

from nazx_cli.cli.shared.options import Report, count_option, option
from nazx_cli.errors import UsageError
from nazx_cli.names import DTYPES
from nazx_cli.ranks import rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nazx_cli.training.trainer import Progress

Arithmetic = Annotated[str, option("--dtype", "Number format of the arithmetic.", choices=DTYPES)]
_WIDE = 1_000  # the bar's units


@dataclass(frozen=True)
class LengthOptions:
    """How long is trained, in what steps, and when it is looked at what was held out."""

    epochs: Annotated[float, option("--epochs", "Passes over the data.", min=0, metavar="N")] = 1.0
    steps: Annotated[
        int | None, count_option("--steps", "Steps, in place of --epochs.", least=0)
    ] = None
    minutes: Annotated[
        float | None, option("--minutes", "Minutes, in place of --epochs.", min=0, metavar="N")
    ] = None
    batch_tokens: Annotated[int, count_option("--batch-tokens", "Tokens of a step, at least.")] = (
        4096
    )
    check_every: Annotated[int, count_option("--check-every", "Steps between held-out losses.")] = (
        100
    )
    patience: Annotated[
        int, count_option("--patience", "End after N checks that are no better.")
    ] = 5
    seed: Annotated[int, option("--seed", "Same seed, same run.", metavar="N")] = 0

    def check(self) -> None:
        """``UsageError`` where two options limit the run."""
        if self.steps is not None and self.minutes is not None:
            raise UsageError("--steps and --minutes both limit the run", "leave one of them out")


def report_of_first(*, json: bool, quiet: bool) -> Report:
    """What tells how a training goes: of several processes the first one alone speaks."""
    first = rank() == 0
    report = Report(json=json and first, quiet=quiet or not first)
    report.screen.start_computing()
    return report


@contextmanager
def resumable(command: str, out: Path, report: Report) -> Iterator[None]:
    """Where this is stopped, tell how ``nazx command`` goes on in ``out``."""
    try:
        yield
    except KeyboardInterrupt:
        resume = f"nazx {command} --resume --out {quote(str(out))}"
        report.tell({}, note=f"stopped; go on with: {resume}")
        raise


def teller(update: Callable[..., None], name: str = "") -> Callable[[Progress], None]:
    """What to call after each step, to show it on the bar that ``update`` moves."""
    front = f"{name}: " if name else ""

    def told(progress: Progress) -> None:
        held = f", held out {progress.held_out:.3f}" if progress.held_out is not None else ""
        left = f"{progress.seconds_left / 60:.0f} min left"
        pace = f"{progress.tokens_per_second:,.0f} tokens/s"
        stage = f"{front}step {progress.step:,}, loss {progress.loss:.3f}{held}, {pace}, {left}"
        update(stage, int(_WIDE * progress.share), _WIDE)

    return told
