"""``nazx bench``: measures NazX, side by side with what users would otherwise run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nazx_cli.cli.shared.options import (
    Files,
    ModelName,
    OutputOptions,
    count_option,
    make_screen,
    option,
)
from nazx_cli.config import MAX_INITIAL_WINDOW
from nazx_cli.context.ranks.sharing import BLOCK
from nazx_cli.errors import NazxError, UsageError
from nazx_cli.names import DEFAULT_MODEL, DTYPES, LAYOUTS, WORKLOADS
from nazx_cli.ui.phrases import counted
from nazx_cli.ui.terminal.interrupts import INTERRUPTED
from nazx_cli.ui.terminal.tables import Table

if TYPE_CHECKING:
    from nazx_cli.bench.results import Environment, Report, Row, Spread
    from nazx_cli.bench.setup import Settings
    from nazx_cli.bench.workloads import Workload
    from nazx_cli.ui.terminal.screen import Screen

_HEADING = ("what", "tokens", "nazx", "against", "theirs", "ratio", "by rounds", "notes")
_SCALES = {
    "s": (("s", 1.0), ("ms", 1e-3)),
    "bytes": (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1.0)),
    "": (("", 1.0),),
}


@dataclass(frozen=True)
class BenchOptions:
    """What is measured, how often, and where the figures go."""

    model: ModelName = DEFAULT_MODEL
    dtype: Annotated[
        str, option("--dtype", "Number format of weights and arithmetic.", choices=DTYPES)
    ] = "bfloat16"
    repeat: Annotated[int, count_option("--repeat", "Counted runs of each side.")] = 5
    shapes: Annotated[
        str | None,
        option(
            "--shapes",
            "Model whose shapes the random models have.",
            metavar="NAME",
            show_default="nazx-160m, and nazx-1b where two are measured",
        ),
    ] = None
    initial_window: Annotated[
        str,
        option(
            "--initial-window",
            "Tokens that initial states of the random models see.",
            choices=tuple(map(str, range(1, MAX_INITIAL_WINDOW + 1))),
        ),
    ] = "1"
    ctx: Annotated[
        list[int] | None,
        count_option(
            "--ctx",
            "Context length of the random models, in place of a workload's own. May be repeated.",
        ),
    ] = None
    layout: Annotated[
        list[str] | None,
        option(
            "--layout",
            "Memory layout of the random models, in place of a workload's own. May be repeated.",
            choices=tuple(LAYOUTS),
        ),
    ] = None
    processes: Annotated[
        list[int] | None,
        count_option(
            "--processes",
            "How many hold a model together, in place of a workload's own. May be repeated.",
        ),
    ] = None
    block: Annotated[
        int, count_option("--block", "Tokens of a block of a prompt that several processes read.")
    ] = BLOCK
    threads: Annotated[int, count_option("--threads", "Threads that each side computes on.")] = 1
    gguf: Annotated[
        str, option("--gguf", "The model's file for llama.cpp, else fetched.", metavar="FILE")
    ] = ""
    quick: Annotated[
        bool,
        option("--quick", "All that --all runs, small: some minutes, to see that it works."),
    ] = False
    output: Annotated[
        Path | None, option("--output", "Also write the figures there, as JSON.", metavar="FILE")
    ] = None
    plots: Annotated[
        Path | None,
        option(
            "--plots",
            "Folder for growth.svg and growth.png.",
            metavar="DIR",
            show_default="that of --output",
        ),
    ] = None
    json: Annotated[bool, option("--json", "Print JSON instead of tables.")] = False

    def settings(self, files: Sequence[str]) -> Settings:
        """The benchmark's settings."""
        from nazx_cli.bench.setup import Settings

        settings = Settings(
            model=self.model,
            dtype=self.dtype,
            repeat=self.repeat,
            contexts=tuple(self.ctx or ()),
            # NAZX_LAYOUT may say auto, for the other commands: here that is no layout's name.
            layouts=tuple(name for name in self.layout or () if name != "auto"),
            files=tuple(files),
            initial_window=int(self.initial_window),
            processes=tuple(dict.fromkeys(self.processes or ())),
            block=self.block,
            threads=self.threads,
            gguf=self.gguf,
        )
        if self.quick:
            settings = settings.quick()
        return replace(settings, shapes=self.shapes, larger="") if self.shapes else settings

    @property
    def plot_folder(self) -> Path | None:
        """Where plots go, if anywhere."""
        beside = self.output.absolute().parent if self.output else None
        return self.plots.absolute() if self.plots else beside


def bench(
    name: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="prefill, decode, memory, peak; with --file read, tokenizing, quantization. "
            "These are the default. By name or with --all, since they take long: attention, "
            "decode-long, first-token, growth, edits, ranks, blocks, split, room, training, serve, "
            "drafts, folders. By name only: recall.",
            show_default=False,
            autocompletion=lambda: list(WORKLOADS),
        ),
    ] = None,
    file: Files = None,
    *,
    every: Annotated[bool, option("--all", "All workloads, those that take long too.")] = False,
    options: BenchOptions,
) -> None:
    """Measure speed and memory, side by side with what else there is: dense attention in torch,
    transformers and llama.cpp where they are installed.

    Example: nazx bench growth --output bench.json
    """
    screen = make_screen(OutputOptions())
    screen.start_computing()
    from nazx_cli.bench.workloads import choose, left_out

    settings = options.settings(file or ())
    chosen = choose(name or (), settings, every=every or (options.quick and not name))
    if options.quick:
        screen.note(left_out(chosen))
    _check_output(options.output)
    _check_plots(chosen, options.plot_folder, screen)
    report, error = _measure(chosen, settings, screen)
    _show(report, screen, options)
    _plot(report, screen, options.plot_folder)
    if error is not None:
        raise error
    if not report.complete:
        raise typer.Exit(INTERRUPTED)


def _check_output(path: Path | None) -> None:
    """Refuse a file that cannot be, before the minutes that measuring takes."""
    if path is None:
        return
    # What is there and no file, such as a device, would be replaced by one.
    if (path.exists() and not path.is_file()) or not path.absolute().parent.is_dir():
        raise UsageError(f"{path} cannot be written", "name a file in a folder that there is")


def _check_plots(chosen: Sequence[Workload], folder: Path | None, screen: Screen) -> None:
    """Tell beforehand where plots cannot be had."""
    if all(workload.name != "growth" for workload in chosen):
        return
    from nazx_cli.bench import growth

    if folder is None:
        screen.note("nothing is plotted: name a folder with --plots, or a file with --output")
    elif folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder", "name another: --plots DIR")
    elif not growth.can_plot():
        screen.note(growth.NO_PLOTS)


def _measure(
    chosen: Sequence[Workload], settings: Settings, screen: Screen
) -> tuple[Report, NazxError | None]:
    """Run the workloads one after another; Ctrl-C or an error keeps the rows that are done."""
    from nazx_cli.bench.results import Environment, Report, on_threads
    from nazx_cli.bench.setup import Setup

    setup = Setup(settings, screen.note)
    rows: list[Row] = []
    with on_threads(settings.threads):
        environment = Environment.current(settings.dtype)
        try:
            for workload in chosen:
                rows.extend(workload.run(setup))
        except KeyboardInterrupt:
            screen.note("interrupted")
            return Report(environment, rows, complete=False), None
        except NazxError as error:
            return Report(environment, rows, complete=False), error
    return Report(environment, rows), None


def _plot(report: Report, screen: Screen, folder: Path | None) -> None:
    """Plots of the workload growth, where it was run and there is a folder for them."""
    from nazx_cli.bench import growth

    if folder is not None and growth.can_plot():
        for path in growth.write_plots(report.rows, folder):
            screen.note(f"wrote {path}")


def _show(report: Report, screen: Screen, options: BenchOptions) -> None:
    """The report on stdout, and in the file that was asked for."""
    if options.output is not None:
        from nazx_cli.bench.results import write_report

        write_report(report, options.output.absolute())
    if options.json:
        screen.data(report.to_dict())
        return
    screen.line(_environment_line(report.environment))
    by_workload: dict[str, list[Row]] = defaultdict(list)
    for row in report.rows:
        by_workload[row.workload].append(row)
    for workload, rows in by_workload.items():
        screen.line(f"\n{workload}:")
        screen.line(Table(list(map(_cells, rows)), _HEADING, right=(1, 2, 4, 5, 6)))


def _environment_line(environment: Environment) -> str:
    threads = counted(environment.threads, "thread")
    versions = [f"{name} {known or '(missing)'}" for name, known in environment.versions.items()]
    parts = [f"{environment.device}: {environment.cpu}", threads, environment.dtype, *versions]
    return " · ".join(parts)


def _cells(row: Row) -> tuple[str, ...]:
    """A row as it is shown: medians, with the least and the greatest run behind them."""
    what = ", ".join(part for part in (row.measure, row.layout, row.kernel, row.dtype) if part)
    details = [_detail(name, value) for name, value in row.details.items()]
    return (
        what,
        f"{row.tokens:,}",
        _spread(row.ours, row.unit),
        row.peer,
        _spread(row.theirs, row.unit) if row.theirs else "",
        _times(row.ratio),
        _times(row.paired_ratio) if len(row.ours.runs) > 1 else "",
        "; ".join(part for part in (row.note, *details) if part),
    )


def _times(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2f}"


def _spread(spread: Spread, unit: str) -> str:
    """``1.25 s (1.20..1.31)``, the range in the median's own unit; no range for one run."""
    name, scale = _scale(spread.median, unit)
    text = f"{_figure(spread.median / scale)} {name}"
    if len(spread.runs) == 1:
        return text
    return f"{text} ({_figure(spread.low / scale)}..{_figure(spread.high / scale)})"


def _detail(name: str, value: float | int) -> str:
    """A further figure in words: ``build_seconds`` 0.35 becomes ``build 350 ms``."""
    for suffix, unit in (("_seconds", "s"), ("_bytes", "bytes")):
        if name.endswith(suffix):
            short, scale = _scale(value, unit)
            words = name.removesuffix(suffix).replace("_", " ")
            return f"{words} {_figure(value / scale)} {short}"
    shown = f"{value:,}" if isinstance(value, int) else _figure(value)
    return f"{name.replace('_', ' ')} {shown}"


def _scale(value: float, unit: str) -> tuple[str, float]:
    """The unit that shows ``value`` best, and what it counts."""
    steps = _SCALES[unit]
    return next(((name, size) for name, size in steps if abs(value) >= size), steps[-1])


def _figure(value: float) -> str:
    """Three digits that count, and no fewer than there are before the point."""
    if 0 < abs(value) < 5e-4:
        return f"{value:.1e}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"
