"""``nazx eval``: asks questions whose answers are known, and tells how good the answers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nazx_cli.cli.shared.answers import AnswerOptions
from nazx_cli.cli.shared.documents import read_documents
from nazx_cli.cli.shared.options import (
    Json,
    ModelOptions,
    OutputOptions,
    Quiet,
    count_option,
    make_screen,
    model_names,
    option,
)
from nazx_cli.errors import UsageError
from nazx_cli.names import (
    APPROXIMATIONS,
    BEFORE,
    DEFAULT_MODEL,
    GIVEN,
    PROBES,
    READ_MODES,
    RIVALS,
    TURNS,
)
from nazx_cli.ui.terminal.interrupts import INTERRUPTED

if TYPE_CHECKING:
    from nazx_cli.documents.document import Document
    from nazx_cli.evaluation.data.stories import Story
    from nazx_cli.session.settings import SessionSettings
    from nazx_cli.ui.terminal.screen import Screen


@dataclass(frozen=True)
class EvalModels(ModelOptions):
    """The options of a model, for several models and adapters side by side."""

    model: Annotated[
        list[str] | None,
        option(
            "--model",
            "Name, org/repo or folder. May be repeated.",
            "-m",
            metavar="NAME",
            show_default=DEFAULT_MODEL,
            autocompletion=model_names,
        ),
    ] = None  # type: ignore[assignment]
    adapter: Annotated[
        list[str] | None,
        option(
            "--adapter",
            "Adapter of the model, or none for the model without. May be repeated.",
            metavar="NAME",
        ),
    ] = None  # type: ignore[assignment]

    def each(self) -> list[ModelOptions]:
        """The options of every model with every adapter."""
        known = {field.name for field in fields(ModelOptions)}
        values = {name: getattr(self, name) for name in known}
        found = []
        for name in dict.fromkeys(self.model or [DEFAULT_MODEL]):
            for adapter in dict.fromkeys(self.adapter or ("",)):
                chosen = {"model": name, "adapter": adapter or None}
                found.append(ModelOptions(**{**values, **chosen}))
        return found


@dataclass(frozen=True)
class EvalAnswers(AnswerOptions):
    """The options of an answer, for several ways of reading side by side."""

    read: Annotated[
        list[str] | None,
        option(
            "--read",
            "How documents are read. May be repeated.",
            choices=READ_MODES,
            show_default="auto",
        ),
    ] = None  # type: ignore[assignment]
    seed: Annotated[
        int | None,
        option(
            "--seed",
            "Which questions --limit draws; with --temperature, the same answers too.",
            metavar="N",
        ),
    ] = None

    def each(self) -> list[tuple[str, SessionSettings]]:
        """The settings of every way of reading."""
        values = {field.name: getattr(self, field.name) for field in fields(AnswerOptions)}
        reads = dict.fromkeys(self.read or ["auto"])
        return [(read, AnswerOptions(**{**values, "read": read}).settings()) for read in reads]


@dataclass(frozen=True)
class EvalOptions:
    """What is asked and compared; what may be repeated is set side by side."""

    given: Annotated[
        list[str] | None,
        option(
            "--given",
            "What is asked about: the right section, its story, one book of all stories, or all "
            "as files of a folder. May be repeated.",
            choices=GIVEN,
            show_default="story",
        ),
    ] = None
    beside: Annotated[
        list[str] | None,
        option(
            "--beside",
            "With --given folder: what else lies there: a file, folder, glob or URL. "
            "May be repeated.",
            metavar="PATH",
        ),
    ] = None
    turns: Annotated[
        list[str] | None,
        option(
            "--turns",
            "Each question alone (ask), all about a story in one chat (chat), or as the data "
            "has it (auto). May be repeated.",
            choices=TURNS,
            show_default="auto",
        ),
    ] = None
    against: Annotated[
        list[str] | None,
        option(
            "--against",
            "Others to set beside: libraries with the same passages or, -first, with the "
            "document's first tokens; extracts, for summaries. May be repeated.",
            choices=RIVALS,
        ),
    ] = None
    retrieval: Annotated[
        bool, option("--retrieval", "What is read for each question; no answers are made.")
    ] = False
    perplexity: Annotated[
        bool,
        option(
            "--perplexity",
            "Perplexity by position of the documents' text (--ctx tokens a stretch, --limit "
            "stretches a document). A FILE of plain text gets it without asking.",
        ),
    ] = False
    before: Annotated[
        int | None,
        count_option(
            "--before", "With --perplexity: tokens before each stretch that are resident.", least=2
        ),
    ] = None
    before_from: Annotated[
        list[str] | None,
        option(
            "--before-from",
            "Whose they are. May be repeated.",
            choices=BEFORE,
            show_default="own",
        ),
    ] = None
    probe: Annotated[
        list[str] | None,
        option(
            "--probe",
            "Hide something in the documents' text and ask for it, at lengths up to --ctx and "
            "five depths; --limit trials each. May be repeated.",
            choices=PROBES,
        ),
    ] = None
    approximation: Annotated[
        list[str] | None,
        option(
            "--approximation",
            "With --perplexity or --probe, for models with full attention: beside it "
            f"{', '.join(APPROXIMATIONS)}, with settings as star:512; with --before beside what a "
            "far memory attends to. May be repeated.",
            metavar="NAME",
        ),
    ] = None
    limit: Annotated[
        int | None,
        count_option("--limit", "Ask N questions, spread over all documents."),
    ] = None
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
    extract_words: Annotated[int, count_option("--extract-words", "Length of an extract.")] = 200
    json: Json = False
    quiet: Quiet = False


def _beside(options: EvalOptions, stories: Sequence[Story], screen: Screen) -> tuple[Document, ...]:
    """What ``--beside`` names, without the files of ``stories``."""
    if not options.beside:
        return ()
    from nazx_cli.evaluation.data.given import FOLDER

    if FOLDER not in (options.given or ()):
        raise UsageError("--beside says what lies in a folder", f"add --given {FOLDER}")
    known = {_file_of(story.source) for story in stories if story.source}
    found = read_documents(options.beside, screen)
    return tuple(each for each in found if each.origin is None or _file_of(each) not in known)


def _file_of(document: Document) -> Path | None:
    return Path(document.origin.path).resolve() if document.origin else None


def evaluate(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="JSON lines of documents with questions, or plain text."
        ),
    ],
    *,
    models: EvalModels,
    answers: EvalAnswers,
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
    screen = make_screen(OutputOptions(json=options.json, quiet=options.quiet))
    screen.start_computing()
    from nazx_cli.cli.judge.runs import Evaluation
    from nazx_cli.evaluation.data.files import check_asked, draw, read_data
    from nazx_cli.evaluation.words import check_rouge

    if not (options.perplexity or options.probe or options.retrieval):
        check_rouge()  # what judges answers
    found = read_data(data)
    if found.left_out:
        screen.note(f"note: {found.left_out:,} questions whose answers the data lacks are left out")
    texts = found.texts
    stories = draw(found.stories, options.limit, answers.seed or 0)
    if options.perplexity or options.probe:
        texts, stories = (*texts, *((story.title, story.text) for story in stories)), ()
    elif not texts or stories:
        check_asked(stories)
    beside = _beside(options, stories, screen)
    evaluation = Evaluation(models, answers, options, screen, beside)
    complete = evaluation.run(stories, texts)
    evaluation.show(complete)
    if not complete:
        raise typer.Exit(INTERRUPTED)
