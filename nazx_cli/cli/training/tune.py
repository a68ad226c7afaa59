"""``nazx tune``: teaching a model to answer, from questions whose answers are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from nazx_cli.cli.shared.options import (
    Device,
    Json,
    ModelName,
    Offline,
    Quiet,
    Report,
    Revision,
    count_option,
    option,
)
from nazx_cli.cli.shared.ranks import refuse_ranks
from nazx_cli.cli.training.base import load_base
from nazx_cli.cli.training.far import FarOptions, is_far_run, tune_far
from nazx_cli.cli.training.length import (
    Arithmetic,
    LengthOptions,
    report_of_first,
    resumable,
    teller,
)
from nazx_cli.errors import UsageError
from nazx_cli.foreign import expanded
from nazx_cli.names import DEFAULT_MODEL
from nazx_cli.ui.terminal.interrupts import terminable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.training.far.settings import FarSettings
    from nazx_cli.training.trainer import Schedule
    from nazx_cli.training.tuning.run import RunSettings


@dataclass(frozen=True)
class TuneOptions(FarOptions, LengthOptions):
    """What is trained, on how much, and how fast."""

    full: Annotated[bool, option("--full", "Tune all weights, not an adapter.")] = False
    rank: Annotated[
        int | None, count_option("--rank", "Rank of the adapter. Default: that of --start, or 16.")
    ] = None
    alpha: Annotated[
        float | None, option("--alpha", "Its scale times its rank. Default: 2 x rank.", metavar="A")
    ] = None
    target: Annotated[
        list[str] | None,
        option(
            "--target",
            "Matrix to adapt, as q_proj. May be repeated. Default: all.",
            metavar="NAME",
        ),
    ] = None
    start: Annotated[
        list[str] | None,
        option(
            "--start",
            "Adapter to begin from. Several, tuned from the same one: from their mean.",
            metavar="FOLDER",
        ),
    ] = None
    rate: Annotated[
        float | None,
        option(
            "--rate", "Peak of the learning rate. Default: 1e-3; with --full 2e-5.", metavar="R"
        ),
    ] = None
    longest: Annotated[
        int | None, count_option("--longest", "Most tokens of a prompt.", least=16)
    ] = None
    held_share: Annotated[
        int, count_option("--held-share", "One document in N is held out; 0: none.", least=0)
    ] = 16
    questions: Annotated[
        int,
        count_option("--questions", "Held-out questions to answer at each check.", least=0),
    ] = 0
    calibrate: Annotated[
        int | None,
        count_option(
            "--calibrate",
            "Held-out questions to fit on, at the end, how sure answers are said to be.",
            least=0,
        ),
    ] = None
    together: Annotated[
        int | None,
        count_option(
            "--together",
            "Best passages of the first prompt of a question. Default: those of --start, or 3.",
        ),
    ] = None
    apart: Annotated[
        int | None,
        count_option(
            "--apart",
            "Passages with a prompt of their own. Default: those of --start, or 10.",
            least=0,
        ),
    ] = None


@terminable()
def tune(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE[=TIMES]...", help="JSON lines of questions or chats, or plain text."
        ),
    ] = None,
    out: Annotated[
        Path | None, option("--out", "Folder of the run and of what comes of it.", metavar="FOLDER")
    ] = None,
    resume: Annotated[bool, option("--resume", "Go on with the run in --out.")] = False,
    export: Annotated[
        bool, option("--export", "With --resume: write what there is so far, and end.")
    ] = False,
    model: ModelName = DEFAULT_MODEL,
    device: Device = "auto",
    dtype: Arithmetic = "auto",
    *,
    options: TuneOptions,
    revision: Revision = None,
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tune a model on questions about documents, chats or plain text.

    Questions are put exactly as nazx ask puts them, with passages as it finds them. The result is
    an adapter (--adapter FOLDER), or with --full a model. With --far long texts teach a far memory
    instead, for --read resident. A run that was stopped goes on with --resume, to the same end.

    Example: nazx tune questions.jsonl --out run --minutes 60
    """
    if out is None:
        raise UsageError("the run needs a folder", "add --out FOLDER")
    if export and not resume:
        raise UsageError("there is nothing to export yet", "add --resume")
    if resume == bool(data):
        raise UsageError(
            "a run begins with files, or goes on with --resume",
            f"nazx tune questions.jsonl --out {out}, or nazx tune --resume --out {out}",
        )
    report = report_of_first(json=json, quiet=quiet)
    if options.far or (resume and is_far_run(out)):
        refuse_ranks("tune --far")
        wanted = None if resume else _far(data or [], options, (model, revision), device, dtype)
        tune_far(out, wanted, report, offline=offline, export=export)
        return
    wishes = None if resume else _settings(data or [], options, (model, revision), device, dtype)
    from nazx_cli.training.ranks import Ranks
    from nazx_cli.training.tuning.run import Run

    with Ranks.joined() as ranks:
        begun = None
        if ranks.is_first:
            begun = _begun(out, wishes, options, report, offline)
        ranks.wait()  # what all others go on from is there now
        settings, lm = begun or _begun(out, None, options, report, offline)
        run = Run(out, settings, lm, ranks)
        with resumable("tune", out, report):
            if not export:
                with report.progress("tuning") as update:
                    run.go(teller(update))
    if not ranks.is_first:
        return
    with resumable("tune", out, report), report.progress("writing") as update:
        made = run.export(lambda done, total: update("calibrating", done, total))
    _tell(report, run.trainer.counters, made, settings)


def _begun(
    out: Path, wishes: RunSettings | None, options: TuneOptions, report: Report, offline: bool
) -> tuple[RunSettings, LanguageModel]:
    """The run in ``out``, which is made of ``wishes`` where there are such, and its base; of one
    that goes on ``options`` change what is told of its adapter."""
    from nazx_cli.training.tuning.run import prepare, read_settings

    if wishes is None:
        settings = read_settings(out)
        wanted = {name: getattr(options, name) for name in ("calibrate", "together", "apart")}
        given = {name: value for name, value in wanted.items() if value is not None}
        settings = replace(settings, **given)
        return settings, load_base(settings, report, offline)
    lm = load_base(wishes, report, offline)
    with report.progress("making prompts of the data") as update:

        def told(name: str, done: int, total: int) -> None:
            update(f"making prompts of {name}", done, total)

        return prepare(out, wishes, lm, told), lm


def _settings(
    data: Sequence[str],
    options: TuneOptions,
    model: tuple[str, str | None],
    device: str,
    dtype: str,
) -> RunSettings:
    from nazx_cli.checkpoint.adapters.lora import read_adapter
    from nazx_cli.training.lora import LoraSettings
    from nazx_cli.training.tuning.data import Source
    from nazx_cli.training.tuning.run import RunSettings

    if options.full:
        _refuse_of_adapters(options)
    start = tuple(expanded(each).absolute() for each in options.start or ())
    lora = None
    if not options.full:
        rank = options.rank or (read_adapter(start[0]).rank if start else LoraSettings().rank)
        alpha = 2.0 * rank if options.alpha is None else options.alpha
        lora = LoraSettings(rank, alpha, tuple(options.target or ()))
    schedule = _schedule(options, 2e-5 if options.full else 1e-3)
    sources = tuple(Source.parse(each) for each in data)
    return RunSettings(
        model=model[0],
        revision=model[1],
        sources=tuple(Source(expanded(s.path).absolute(), s.times) for s in sources),
        schedule=schedule,
        lora=lora,
        start=tuple(map(str, start)),
        longest=options.longest,
        held_share=options.held_share,
        questions=options.questions,
        calibrate=options.calibrate or 0,
        together=options.together,
        apart=options.apart,
        epochs=options.epochs,
        device=device,
        dtype=dtype,
    )


def _refuse_of_adapters(options: TuneOptions) -> None:
    """``UsageError`` for what means nothing where no adapter is tuned."""
    for name in ("start", "calibrate", "together", "apart"):
        if getattr(options, name):
            raise UsageError(
                f"--full tunes no adapter, which --{name} is for", f"leave --{name} out"
            )


def _far(
    data: Sequence[str],
    options: TuneOptions,
    model: tuple[str, str | None],
    device: str,
    dtype: str,
) -> FarSettings:
    from nazx_cli.training.far.settings import FarSettings

    if options.full or options.start:
        raise UsageError("--far teaches nothing but the memory", "leave --full and --start out")
    return FarSettings(
        model=model[0],
        revision=model[1],
        sources=tuple(str(expanded(each).absolute()) for each in data),
        schedule=_schedule(options, 1e-3),
        far=options.far or "inattention",
        rank=options.far_rank,
        window=options.far_window,
        around=options.far_around,
        segment=options.far_segment,
        update=options.far_update,
        live=options.far_control,
        held_share=options.held_share,
        epochs=options.epochs,
        device=device,
        dtype=dtype,
    )


def _schedule(options: TuneOptions, rate: float) -> Schedule:
    from nazx_cli.training.trainer import Schedule

    options.check()
    return Schedule(
        steps=options.steps,
        minutes=options.minutes,
        batch_tokens=options.batch_tokens,
        rate=options.rate or rate,
        check_every=options.check_every,
        patience=options.patience,
        seed=options.seed,
    )


def _tell(report: Report, counters: object, made: Path, settings: RunSettings) -> None:
    from nazx_cli.training.state import Counters

    assert isinstance(counters, Counters)
    known = counters.best < float("inf")
    held = f", held-out loss {counters.best:.4f} at step {counters.best_step:,}" if known else ""
    model, place = quote(settings.model), quote(str(made))
    use = f"-m {place}" if settings.lora is None else f"-m {model} --adapter {place}"
    facts = {
        "path": str(made),
        "steps": counters.step,
        "tokens": counters.tokens,
        "seconds": round(counters.seconds, 1),
        "held_out": counters.best if known else None,
        "best_step": counters.best_step if known else None,
    }
    line = f"{made} is ready: {counters.step:,} steps, {counters.tokens:,} tokens{held}"
    report.tell(facts, line, note=f"try: nazx ask {use} --file book.txt QUESTION")
