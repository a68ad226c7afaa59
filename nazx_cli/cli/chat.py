"""``nazx chat``: a conversation."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

import typer

from nazx_cli.cli.shared.answers import AnswerOptions
from nazx_cli.cli.shared.documents import IndexOptions
from nazx_cli.cli.shared.options import (
    ChatOptions,
    Files,
    ModelOptions,
    OutputOptions,
)
from nazx_cli.cli.shared.ranks import SharingOptions, over_ranks
from nazx_cli.errors import NazxError, UsageError
from nazx_cli.ui.terminal.interrupts import INTERRUPTED

if TYPE_CHECKING:
    from nazx_cli.ranks import Group
    from nazx_cli.ui.chat import Chat


def chat(
    context: typer.Context,
    file: Files = None,
    *,
    model: ModelOptions,
    answers: AnswerOptions,
    index: IndexOptions,
    sharing: SharingOptions,
    output: OutputOptions,
    options: ChatOptions,
) -> None:
    """Chat with a model, about documents if any are given.

    Every turn is saved; --resume goes on where the last chat ended. Without a terminal on stdin,
    every line of it is a question, and only a named session is saved.

    Example: nazx chat --file book.txt
    """
    files = tuple(file or ())
    if "-" in files:
        raise UsageError(
            "the chat reads questions from stdin, so --file - cannot", "give the file's name"
        )
    opened = context, files, model, answers, index, output, options
    over_ranks(lambda group: _chat(*opened, sharing, group), model.device)


def _chat(
    context: typer.Context,
    files: tuple[str, ...],
    model: ModelOptions,
    answers: AnswerOptions,
    index: IndexOptions,
    output: OutputOptions,
    options: ChatOptions,
    sharing: SharingOptions,
    group: Group | None,
) -> None:
    from nazx_cli.cli.shared.opening import Opening, named_options, names_no_model
    from nazx_cli.ui.terminal.screen import no_echo

    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not output.json
    opening = Opening(
        files,
        model,
        answers,
        output,
        options,
        named_options(context),
        interactive,
        names_no_model=names_no_model(context),
        group=group,
        sharing=sharing,
        index=index,
    )
    with no_echo() if interactive else nullcontext():
        chat = opening.open()
    try:
        code = _converse(chat) if interactive else _answer_lines(chat, output.json)
        code = code or chat.leave()
    finally:
        chat.autosave.close()
    if code:
        raise typer.Exit(code)


def _converse(chat: Chat) -> int:
    from nazx_cli.catalog.stored import nazx_home
    from nazx_cli.memory.choosing import better_model
    from nazx_cli.ui.repl import Repl

    chat.screen.note(_greeting(chat))
    plan = chat.lm.plan
    if plan and (advice := better_model(chat.lm.name, plan.limit)):
        chat.screen.note(advice)
    Repl(chat, nazx_home() / "history").run()
    return 0


def _greeting(chat: Chat) -> str:
    from nazx_cli.ui.phrases import counted

    lm, workspace = chat.lm, chat.workspace
    window = "no limit" if lm.window is None else f"{lm.window:,} tokens"
    parts = [lm.name, f"window {window}"]
    if documents := workspace.documents:
        names = ", ".join(part.document.name for part in documents)
        if len(documents) > 3:
            names = f"{len(documents):,} documents"
        parts.append(f"{names} ({sum(map(len, documents)):,} tokens)")
    if turns := workspace.turns:
        last = " ".join(turns[-1].question.split())
        shown = last if len(last) <= 50 else f"{last[:49]}…"
        parts.append(f"{counted(len(turns), 'turn')} so far, the last “{shown}”")
    if turns and chat.autosave.name:
        parts.append(f"session {chat.autosave.name}")
    return " · ".join(parts) + "\n/help lists the commands"


def _answer_lines(chat: Chat, as_json: bool) -> int:
    """One answer for each line; a question that fails is reported and the next one taken.

    Returns the exit code.
    """
    failure: NazxError | None = None
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            outcome = chat.answer(line, as_json=as_json)
        except NazxError as error:
            chat.screen.error(error)
            failure = failure or error
            continue
        if outcome.interrupted:
            return INTERRUPTED
    return failure.exit_code if failure is not None else 0
