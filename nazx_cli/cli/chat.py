"""``nazx chat``: a conversation."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from nazx_cli.cli.options import AnswerOptions, Files, ModelOptions, OutputOptions
from nazx_cli.errors import NazxError, UsageError

if TYPE_CHECKING:
    from nazx_cli.session.session import Session
    from nazx_cli.ui.screen import Screen


def chat(
    file: Files = None,
    *,
    model: ModelOptions,
    answers: AnswerOptions,
    output: OutputOptions,
) -> None:
    """Chat with a model, about documents if any are given.

    Without a terminal on stdin, every line of it is a question.
    """
    files = file or ()
    from nazx_cli.cli.output import make_screen
    from nazx_cli.cli.prepare import open_session, read_documents

    if "-" in files:
        raise UsageError(
            "the chat reads questions from stdin, so --file - cannot", "give the file's name"
        )
    screen = make_screen(output)
    documents = read_documents(files, None, screen)
    session = open_session(model, answers, documents, screen)
    if sys.stdin.isatty() and sys.stdout.isatty() and not output.json:
        _converse(session, screen)
    else:
        _answer_lines(session, screen, output.json)


def _converse(session: Session, screen: Screen) -> None:
    from nazx_cli.memory.advice import better_model
    from nazx_cli.ui.repl import Repl
    from nazx_cli.weights.home import nazx_home

    screen.note(_greeting(session))
    if (limit := session.lm.memory_limit) and (advice := better_model(session.lm.name, limit)):
        screen.note(advice)
    Repl(session, screen, nazx_home() / "history").run()


def _greeting(session: Session) -> str:
    window = "no limit" if session.lm.window is None else f"{session.lm.window:,} tokens"
    parts = [session.lm.name, f"window {window}"]
    if session.library is not None:
        names = ", ".join(document.name for document in session.library.documents[:3])
        more = len(session.library.documents) - 3
        names += f" and {more} more" if more > 0 else ""
        parts.append(f"{names} ({session.library.num_tokens:,} tokens)")
    return " · ".join(parts) + "\n/help lists the commands"


def _answer_lines(session: Session, screen: Screen, as_json: bool) -> None:
    """One answer for each line; a question that fails is reported and the next one taken."""
    from nazx_cli.ui.turn import show_turn

    failure: NazxError | None = None
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            if show_turn(session, line, screen, as_json=as_json).interrupted:
                raise typer.Exit(130)
        except NazxError as error:
            screen.error(error)
            failure = failure or error
    if failure is not None:
        raise typer.Exit(failure.exit_code)
