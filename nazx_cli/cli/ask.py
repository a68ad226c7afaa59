"""``nazx ask``: one question, one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nazx_cli.cli.shared.answers import AnswerOptions
from nazx_cli.cli.shared.documents import IndexOptions
from nazx_cli.cli.shared.options import (
    AskOptions,
    ChatOptions,
    Files,
    ModelOptions,
    OutputOptions,
    make_screen,
)
from nazx_cli.cli.shared.ranks import SharingOptions, over_ranks
from nazx_cli.cli.shared.stdin import piped_text
from nazx_cli.errors import UsageError
from nazx_cli.ui.terminal.interrupts import INTERRUPTED
from nazx_cli.ui.terminal.screen import Screen

if TYPE_CHECKING:
    from nazx_cli.ranks import Group

_LONGEST_QUESTION = 200_000  # characters: no model that NazX runs reads more at once


def ask(
    context: typer.Context,
    question: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUESTION", help="What to ask; text on stdin comes before it."),
    ] = None,
    file: Files = None,
    *,
    model: ModelOptions,
    answers: AnswerOptions,
    index: IndexOptions,
    sharing: SharingOptions,
    output: OutputOptions,
    options: AskOptions,
) -> None:
    """Ask one question, about documents if any are given.

    Nothing is kept of it, unless --continue or --session names a session to go on with.

    Example: nazx ask --file book.txt "Who is on trial, and what for?"
    """
    asked = context, question or (), file or (), model, answers, index, output, options
    over_ranks(lambda group: _ask(*asked, sharing, group), model.device)


def _ask(
    context: typer.Context,
    question: Sequence[str],
    file: Sequence[str],
    model: ModelOptions,
    answers: AnswerOptions,
    index: IndexOptions,
    output: OutputOptions,
    options: AskOptions,
    sharing: SharingOptions,
    group: Group | None,
) -> None:
    from nazx_cli.cli.shared.opening import Opening, named_options, names_no_model

    asked = _question(question, options.prompt)
    asked, specs, piped = _inputs(asked, file, make_screen(output))
    chosen = ChatOptions(options.go_on, options.session, options.force)
    named = named_options(context)
    opening = Opening(
        tuple(specs),
        model,
        answers,
        output,
        chosen,
        named,
        piped=piped,
        names_no_model=names_no_model(context),
        group=group,
        sharing=sharing,
        index=index,
    )
    chat = opening.open()
    try:
        outcome = chat.answer(asked, as_json=output.json)
        failure = chat.autosave.failure  # told already
    finally:
        chat.autosave.close()
    if outcome.interrupted or failure:
        raise typer.Exit(failure.exit_code if failure else INTERRUPTED)


def _question(words: Sequence[str], prompt: str | None) -> str | None:
    """What is asked: after the text of the prompt that is named, if one is."""
    if len(words) > 1:
        raise UsageError(
            "the question is in several words", f'put quotes around it: "{" ".join(words)}"'
        )
    from nazx_cli.cli import config

    parts = [config.prompt(prompt)] if prompt is not None else []
    return "\n\n".join([*parts, *words]) or None


def _inputs(
    question: str | None, files: Sequence[str], screen: Screen
) -> tuple[str, list[str], str | None]:
    """Question, document names and piped text; piped text is the question if there is none."""
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
    if len(question) > _LONGEST_QUESTION:
        raise UsageError(
            f"a question of {len(question):,} characters is none",
            'give the text as a document, as in: nazx ask --file - "What changed?"',
        )
    return question, specs, piped
