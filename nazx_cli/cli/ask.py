"""``nazx ask``: one question, one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nazx_cli.cli.options import AnswerOptions, Files, ModelOptions, OutputOptions
from nazx_cli.errors import UsageError

if TYPE_CHECKING:
    from nazx_cli.ui.screen import Screen


def ask(
    question: Annotated[
        str | None,
        typer.Argument(metavar="QUESTION", help="What to ask; text on stdin comes before it."),
    ] = None,
    file: Files = None,
    *,
    model: ModelOptions,
    answers: AnswerOptions,
    output: OutputOptions,
) -> None:
    """Ask one question, about documents if any are given.

    Example: nazx ask --file book.txt "Who is on trial, and what for?"
    """
    from nazx_cli.cli.output import make_screen
    from nazx_cli.cli.prepare import open_session, read_documents

    screen = make_screen(output)
    question, specs, piped = _inputs(question, file or (), screen)
    documents = read_documents(specs, piped, screen)
    session = open_session(model, answers, documents, screen)
    from nazx_cli.ui.turn import show_turn

    events = session.ask(question)
    if show_turn(events, session.lm.name, screen, as_json=output.json).interrupted:
        raise typer.Exit(130)


def _inputs(
    question: str | None, files: Sequence[str], screen: Screen
) -> tuple[str, list[str], str | None]:
    """Question, document names and piped text; piped text is the question if there is none."""
    from nazx_cli.cli.stdin import piped_text

    specs = list(files)
    piped = piped_text(screen, wanted="-" in specs)
    if "-" in specs:
        pass
    elif question is None:
        question, piped = piped, None
    elif piped is not None:
        specs.insert(0, "-")
    if question is None or not question.strip():
        raise UsageError(
            "there is no question", 'add one, as in: nazx ask --file book.txt "Who is on trial?"'
        )
    return question, specs, piped
