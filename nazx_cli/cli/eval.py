"""``nazx eval``: asks questions whose answers are known, and tells how good the answers are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nazx_cli.cli.options import (
    DEFAULT_MODEL,
    AnswerOptions,
    Dtype,
    OutputOptions,
    Quantization,
    ReadMode,
    option,
)
from nazx_cli.errors import UsageError

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.evaluation.contestants import Shelf
    from nazx_cli.evaluation.records import Record
    from nazx_cli.evaluation.runner import Progress, Run
    from nazx_cli.evaluation.stories import Story
    from nazx_cli.ui.screen import Screen

_TOLD_EVERY = 30.0  # seconds between lines of progress where no bar can be drawn
_NO_ADAPTER = "none"


class Given(str, Enum):
    """What document a question is asked about; the names of ``evaluation.given.GIVEN``."""

    section = "section"
    story = "story"
    book = "book"


class Turns(str, Enum):
    """How questions are asked; the names of ``evaluation.given.TURNS``."""

    auto = "auto"
    ask = "ask"
    chat = "chat"


@dataclass(frozen=True)
class EvalOptions:
    """Who answers, and how; what may be repeated is compared side by side."""

    model: Annotated[
        list[str] | None,
        option(
            "--model",
            "Name, org/repo or folder. May be repeated.",
            "-m",
            metavar="NAME",
            show_default=DEFAULT_MODEL,
        ),
    ] = None
    adapter: Annotated[
        list[str] | None,
        option(
            "--adapter",
            "Adapter of the model, or none for the model without. May be repeated.",
            metavar="NAME",
        ),
    ] = None
    read: Annotated[
        list[ReadMode] | None,
        option("--read", "How documents are read. May be repeated.", show_default="auto"),
    ] = None
    given: Annotated[
        list[Given] | None,
        option(
            "--given",
            "The document: the right section, its story, or one book of all stories. "
            "May be repeated.",
            show_default="story",
        ),
    ] = None
    turns: Annotated[
        list[Turns] | None,
        option(
            "--turns",
            "Each question alone (ask), all about a story in one chat (chat), or as the data "
            "has it (auto). May be repeated.",
            show_default="auto",
        ),
    ] = None
    retrieval: Annotated[
        bool, option("--retrieval", "What is read for each question; no answers are made.")
    ] = False
    limit: Annotated[
        int | None,
        option("--limit", "Ask N questions, spread over all documents.", min=1, metavar="N"),
    ] = None
    draw: Annotated[
        int, option("--draw", "Which N questions: another number, others.", metavar="N")
    ] = 0
    by: Annotated[
        str | None, option("--by", "Figures by this tag of the data too, as type.", metavar="TAG")
    ] = None
    answers: Annotated[
        Path | None,
        option(
            "--answers",
            "Keep every answer there, as JSON lines. A run that was cut short goes on from it.",
            metavar="FILE",
        ),
    ] = None
    dtype: Annotated[Dtype, option("--dtype", "Number format of the weights.")] = Dtype.auto
    quantize: Annotated[
        Quantization | None, option("--quantize", "Hold the weights in 8 or 4 bits.")
    ] = None
    device: Annotated[
        str, option("--device", "auto, cpu, cuda, cuda:N or mps.", metavar="NAME")
    ] = "auto"
    offline: Annotated[bool, option("--offline", "Use no network.")] = False
    system: Annotated[str | None, option("--system", "System message.", "-s", metavar="TEXT")] = (
        None
    )
    max_tokens: Annotated[
        int, option("--max-tokens", "Most tokens of an answer.", min=1, metavar="N")
    ] = AnswerOptions.max_tokens
    ctx: Annotated[
        int | None, option("--ctx", "Most tokens the context may hold.", min=1, metavar="N")
    ] = None
    json: Annotated[bool, option("--json", "Print JSON instead of a table.")] = False
    quiet: Annotated[bool, option("--quiet", "Nothing on stderr but errors.")] = False

    @property
    def models(self) -> list[str]:
        """Each once, in order."""
        return list(dict.fromkeys(self.model or [DEFAULT_MODEL]))

    @property
    def adapters(self) -> list[str | None]:
        """Each once, in order; None is the model as it comes."""
        return list(dict.fromkeys(self.adapter)) if self.adapter else [None]


def evaluate(
    data: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="JSON lines of documents with questions."),
    ],
    *,
    options: EvalOptions,
) -> None:
    """Ask questions whose answers are known, and tell how good the answers are.

    A line of FILE is a document with questions: {"title": "...", "sections": [{"id": "1",
    "text": "..."}], "questions": [{"question": "...", "answers": ["..."], "sections": ["1"]}]};
    "document": "..." may stand for the sections, "summaries" for answers, "unanswerable": true
    for none. The forms of FairytaleQA, SQuAD, QED, BoolQ, OneStopQA, SQuALITY and QMSum are read
    as they are.

    Example: nazx eval val.jsonl --given section --given book --limit 100 --answers answers.jsonl
    """
    from nazx_cli.cli.output import make_screen
    from nazx_cli.evaluation.data import check_asked, draw, read_data
    from nazx_cli.evaluation.words import check_rouge

    screen = make_screen(OutputOptions(json=options.json, quiet=options.quiet))
    check_rouge()
    found = read_data(data)
    if found.left_out:
        screen.note(f"note: {found.left_out:,} questions whose answers the data lacks are left out")
    stories = draw(found.stories, options.limit, options.draw)
    check_asked(stories)
    runs, shelves = _runs(options, screen)
    answered, complete = _ask(runs, shelves, stories, options, screen)
    from nazx_cli.cli.eval_table import show
    from nazx_cli.evaluation.report import make_report

    columns = make_report(answered, options.by)
    if options.json:
        screen.data({"complete": complete, "runs": [column.to_dict() for column in columns]})
    else:
        show(columns, screen, options.by)
    if not complete:
        raise typer.Exit(130)


def _runs(options: EvalOptions, screen: Screen) -> tuple[list[Run], dict[str, Shelf]]:
    """Everything that is compared, and of each run's label the model that it needs."""
    from nazx_cli.evaluation.contestants import NazxContestant
    from nazx_cli.evaluation.runner import Run

    runs: list[Run] = []
    shelves: dict[str, Shelf] = {}
    reads = list(dict.fromkeys(options.read or [ReadMode.auto]))
    turns = list(dict.fromkeys(options.turns or [Turns.auto]))
    how = {
        "dtype": options.dtype.value,
        "quantize": options.quantize and options.quantize.value,
        "device": options.device,
    }
    for name in options.models:
        for adapter in options.adapters:
            shelf = _shelf(name, adapter, options, screen)
            for read in reads:
                settings = _answer_options(options, read).settings()
                for turn in turns:
                    for given in list(dict.fromkeys(options.given or [Given.story])):
                        parts = [shelf.name, _given_words(given)]
                        parts += [f"--read {read.value}"] if options.read else []
                        parts += [f"--turns {turn.value}"] if options.turns else []
                        parts += ["retrieval alone"] if options.retrieval else []
                        label = ", ".join(parts)
                        contestant = NazxContestant(
                            shelf,
                            settings,
                            {**how, "adapter": adapter},
                            label,
                            answers=not options.retrieval,
                        )
                        runs.append(Run(contestant, given.value, turn.value, label))
                        shelves[label] = shelf
    return runs, shelves


def _given_words(given: Given) -> str:
    return {
        Given.section: "right section given",
        Given.story: "whole story",
        Given.book: "all stories in one book",
    }[given]


def _answer_options(options: EvalOptions, read: ReadMode) -> AnswerOptions:
    return AnswerOptions(
        system=options.system, read=read, max_tokens=options.max_tokens, ctx=options.ctx
    )


def _shelf(name: str, adapter: str | None, options: EvalOptions, screen: Screen) -> Shelf:
    """The model, found now and loaded when it is first asked."""
    from nazx_cli.engine.language_model import load_model
    from nazx_cli.evaluation.contestants import Shelf
    from nazx_cli.weights.resolve import resolve_model

    if adapter not in (None, _NO_ADAPTER):
        raise UsageError("this version applies no adapters", "leave --adapter out")
    with screen.bar(f"finding {name}") as bar:
        bar.start()
        folder = resolve_model(name, offline=options.offline, on_progress=bar.update)

    def load() -> LanguageModel:
        with screen.bar(f"loading {name}") as bar:
            bar.start()
            return load_model(
                folder,
                options.device,
                options.dtype.value,
                options.quantize.value if options.quantize else None,
            )

    return Shelf(name if adapter is None else f"{name} + {adapter}", load, folder)


def _ask(
    runs: Sequence[Run],
    shelves: dict[str, Shelf],
    stories: Sequence[Story],
    options: EvalOptions,
    screen: Screen,
) -> tuple[list[tuple[Run, Record]], bool]:
    """Every answer, and whether all are there; Ctrl-C keeps those that are."""
    from nazx_cli.evaluation.records import AnswerFile
    from nazx_cli.evaluation.runner import evaluate as answers_of

    answered: list[tuple[Run, Record]] = []
    at_work: list[Shelf] = []

    def change(run: Run) -> None:
        while at_work and at_work[-1] is not shelves[run.label]:
            at_work.pop().close()  # one model in memory at a time
        if not at_work:
            at_work.append(shelves[run.label])

    with AnswerFile(options.answers) as file, _Teller(screen) as teller:
        try:
            for each in answers_of(runs, stories, file, teller.update, change):
                answered.append(each)  # one by one: what is there when Ctrl-C comes is kept
        except KeyboardInterrupt:
            teller.stop()
            _tell_interrupted(len(answered), options, screen)
            return answered, False
        teller.tell_found(file.found)
    return answered, True


def _tell_interrupted(count: int, options: EvalOptions, screen: Screen) -> None:
    kept = f"; the same command goes on from {options.answers}" if options.answers else ""
    screen.note(f"interrupted after {count:,} answers{kept}")


class _Teller:
    """Tells how far it is: a bar with the time left, or a line now and then."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._bar = screen.bar("asking")
        self._begin = self._told = time.monotonic()
        self._last: Progress | None = None

    def __enter__(self) -> _Teller:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Remove the bar."""
        self._bar.stop()

    def update(self, progress: Progress) -> None:
        """Show ``progress``."""
        self._last = progress
        self._bar.update(f"asking {progress.label}", progress.done, progress.total)
        now = time.monotonic()
        if self._screen.is_lively or now - self._told < _TOLD_EVERY:
            return
        self._told = now
        fresh = progress.done - progress.found
        left = ""
        if fresh:
            seconds = (now - self._begin) / fresh * (progress.total - progress.done)
            left = f", about {_time_text(seconds)} left"
        self._screen.note(
            f"{progress.done:,} of {progress.total:,} answers{left} ({progress.label})"
        )

    def tell_found(self, in_file: int) -> None:
        """Say what an answers file was good for."""
        self.stop()
        used = self._last.found if self._last else 0
        if used:
            self._screen.note(f"{used:,} of the answers were there already")
        elif in_file:
            self._screen.note(
                f"none of the {in_file:,} answers in the file was of use: they come from other "
                "questions, models or settings, or another version"
            )


def _time_text(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
