"""``nazx train``: new models from random weights, of every attention kind, on one corpus."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nazx_cli.cli.shared.options import (
    Device,
    Json,
    Quiet,
    Report,
    count_option,
    option,
)
from nazx_cli.cli.training.length import (
    Arithmetic,
    LengthOptions,
    report_of_first,
    resumable,
    teller,
)
from nazx_cli.errors import UsageError
from nazx_cli.foreign import expanded
from nazx_cli.ui.terminal.interrupts import terminable

if TYPE_CHECKING:
    from nazx_cli.evaluation.perplexity import Stretch
    from nazx_cli.training.ranks import Ranks
    from nazx_cli.training.scratch.run import TrainSettings

ROPE_TYPES = ("linear", "yarn", "llama3")  # dynamic stretches nothing within the context


@dataclass(frozen=True)
class TrainOptions(LengthOptions):
    """What is trained, of what size, on how much, and how fast."""

    attention: Annotated[
        list[str] | None,
        option(
            "--attention",
            "inattention, inattention:W (initial states that see W tokens), "
            "windowed:WINDOW:SINKS or full. May be repeated.",
            metavar="KIND",
            show_default="inattention",
        ),
    ] = None
    layers: Annotated[int, count_option("--layers", "Layers.")] = 8
    width: Annotated[int, count_option("--width", "Features of a state.", least=8)] = 256
    context: Annotated[int, count_option("--context", "Tokens of a sequence.", least=2)] = 512
    vocab: Annotated[int, count_option("--vocab", "Tokens of the new tokenizer.", least=300)] = 8192
    tied: Annotated[
        bool,
        option("--tied", "Embeddings give the output too: fewer weights, and copying is learnt."),
    ] = False
    start: Annotated[
        str | None,
        option("--start", "Model to go on from: its shape, tokenizer, weights.", metavar="FOLDER"),
    ] = None
    rope: Annotated[
        str | None,
        option(
            "--rope",
            "With --start: how a longer --context is reached. Default: as it is.",
            choices=ROPE_TYPES,
        ),
    ] = None
    seeds: Annotated[int, count_option("--seeds", "Models of each kind.")] = 1
    rate: Annotated[float, option("--rate", "Peak of the learning rate.", min=0, metavar="R")] = (
        1e-3
    )
    decay: Annotated[float, option("--decay", "Weight decay of matrices.", min=0, metavar="D")] = (
        0.1
    )
    recall: Annotated[
        float,
        option(
            "--recall",
            "Add lists that teach to find an earlier word and give what followed it: so many "
            "tokens for each of the files.",
            min=0,
            max=10,
            metavar="SHARE",
        ),
    ] = 0.0
    held_share: Annotated[
        int, count_option("--held-share", "One document in N is held out.", least=2)
    ] = 20


@terminable()
def train(
    data: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE...", help="Text: files, folders and globs."),
    ] = None,
    out: Annotated[
        Path | None, option("--out", "Folder of all that comes of it.", metavar="FOLDER")
    ] = None,
    resume: Annotated[bool, option("--resume", "Go on with the training in --out.")] = False,
    device: Device = "auto",
    dtype: Arithmetic = "auto",
    *,
    options: TrainOptions,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train new models from random weights, or longer contexts from a model.

    Several --attention and --seeds give a series: models of one size on the same tokens, in the
    same order. A training that was stopped goes on with --resume, to the same end. Several
    processes share the work under torchrun.

    Example: nazx train stories/ --attention inattention:3 --out run --minutes 50
    """
    if out is None:
        raise UsageError("the training needs a folder", "add --out FOLDER")
    if resume == bool(data):
        raise UsageError(
            "a training begins with files, or goes on with --resume",
            f"nazx train stories.txt --out {out}, or nazx train --resume --out {out}",
        )
    report = report_of_first(json=json, quiet=quiet)
    from nazx_cli.training.ranks import Ranks

    with Ranks.joined() as ranks:
        from nazx_cli.training.scratch.run import prepare, read_settings

        if not resume and ranks.is_first:
            settings = _settings(tuple(data or ()), options, device, dtype)
            with report.progress("reading the files") as update:
                prepare(out, settings, lambda done, total: update("tokenizing", done, total))
        ranks.wait()
        with resumable("train", out, report):
            _train_all(out, read_settings(out), report, ranks)


def _train_all(out: Path, settings: TrainSettings, report: Report, ranks: Ranks) -> None:
    from nazx_cli.training.scratch.run import TrainRun, plans

    made: dict[str, dict[str, Any]] = {}
    for plan in plans(settings):
        run = TrainRun(out, settings, plan, ranks)
        if not (run.made / "config.json").is_file():
            with report.progress(f"training {plan.name}") as update:
                run.go(teller(update, plan.name))
            if ranks.is_first:
                run.export()
        ranks.wait()
        counters = run.trainer.counters
        made[plan.name] = {
            "path": str(run.made),
            "weights": run.decoder.config.num_parameters,
            "steps": counters.step,
            "tokens": counters.tokens,
            "seconds": round(counters.seconds, 1),
            "held_out": counters.best if counters.best_step else None,
        }
    if ranks.is_first:
        _tell(out, settings, made, report)


def _tell(
    out: Path, settings: TrainSettings, made: dict[str, dict[str, Any]], report: Report
) -> None:
    """What came of it, and how models of a series do by position on what was held out."""
    from nazx_cli.cli.judge.table import by_model, show_perplexity

    stretches = _by_position(out, settings, made, report) if len(made) > 1 else []
    positions = {
        name: [each.to_dict() for each in ranges] for name, ranges in by_model(stretches).items()
    }
    last = next(reversed(made.values()))["path"]
    lines = [_line(name, facts) for name, facts in made.items()]
    note = f"try: nazx chat -m {quote(str(last))} --file book.txt"
    report.tell({"models": made, "positions": positions}, "\n".join(lines), note=note)
    if not report.json:
        show_perplexity(stretches, report.screen)


def _by_position(
    out: Path, settings: TrainSettings, made: dict[str, dict[str, Any]], report: Report
) -> list[Stretch]:
    from nazx_cli.engine.language_model import load_model
    from nazx_cli.evaluation.perplexity import read_through
    from nazx_cli.evaluation.records import AnswerFile
    from nazx_cli.training.scratch.corpus import HELD_TEXT
    from nazx_cli.training.scratch.run import CORPUS

    texts = [(HELD_TEXT, (out / CORPUS / HELD_TEXT).read_text(encoding="utf-8"))]
    found: list[Stretch] = []
    with AnswerFile(None) as file, report.progress("comparing the models") as update:
        for name, facts in made.items():
            lm = load_model(facts["path"], device=settings.device, dtype=settings.dtype)
            length = settings.shape.context
            told = partial(update, f"{name} on what was held out")
            found += read_through(name, name, lm, texts, file, length=length, on_progress=told)
    return found


def _line(name: str, facts: dict[str, Any]) -> str:
    held = facts["held_out"]
    loss = f", held-out loss {held:.4f}" if isinstance(held, float) else ""
    return f"{name}: {facts['steps']:,} steps, {facts['tokens']:,} tokens{loss}; {facts['path']}"


def _settings(
    sources: tuple[str, ...], options: TrainOptions, device: str, dtype: str
) -> TrainSettings:
    from nazx_cli.config import ModelConfig
    from nazx_cli.training.scratch.initial import Shape, spelled
    from nazx_cli.training.scratch.run import TrainSettings
    from nazx_cli.training.trainer import Schedule

    options.check()
    if options.rope and not options.start:
        raise UsageError("--rope stretches a model that is there", "add --start FOLDER")
    if options.start and options.attention:
        raise UsageError("--start takes the attention of its model along", "leave --attention out")
    schedule = Schedule(
        steps=options.steps,
        minutes=options.minutes,
        batch_tokens=options.batch_tokens,
        rate=options.rate,
        warmup=0.05,
        floor=0.1,
        decay=options.decay,
        check_every=options.check_every,
        patience=options.patience,
        seed=options.seed,
    )
    start = expanded(options.start).absolute() if options.start else None
    if start is not None and not (start / "config.json").is_file():
        raise UsageError(f"{start} is no model", "name a folder that nazx train made")
    kinds = tuple(dict.fromkeys(options.attention or ("inattention",)))
    if start is not None:
        kinds = (spelled(ModelConfig.from_folder(start).attention),)
    return TrainSettings(
        sources=tuple(str(expanded(each).absolute()) for each in sources),
        attention=kinds,
        shape=Shape(options.layers, options.width, options.context, options.vocab, options.tied),
        schedule=schedule,
        seeds=options.seeds,
        start=None if start is None else str(start),
        rope=options.rope,
        epochs=options.epochs,
        recall=options.recall,
        held_share=options.held_share,
        device=device,
        dtype=dtype,
    )
