"""The chat's slash commands with values of every kind, typed at its prompt."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import DummyInput
from prompt_toolkit.output import DummyOutput

from fuzz import values
from fuzz.law import MODEL, Case
from fuzz.sessions import saved
from nazx_cli.ui import commands

_MOST = 12  # lines of a case
_ENVIRONMENT = {"NAZX_HOME": "home", "HOME": "home", "NAZX_OFFLINE": "1", "PIP_NO_INDEX": "1"}
_SETTINGS = (
    *("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed", "max_tokens", "ctx"),
    *("read", "grounding", "summaries", "think", "max_thinking", "system", "nothing"),
)


def cases(rng: random.Random) -> Iterator[Case]:
    """Without end: a few commands in a row, questions between them."""
    while True:
        lines = [_line(rng) for _ in range(rng.randint(1, _MOST))]
        typed = "\n".join(lines).encode("utf-8", "surrogateescape")
        yield Case(
            lines[0].split(" ")[0] or "nothing",
            ("chat",),
            {**values.FILES, "home/sessions/work.nazx": saved(0)},
            typed,
            _ENVIRONMENT,
            values.prepare,
            may_change=("home", *(name for name in values.FILES if name in "\n".join(lines))),
            may_add=True,
            entry="fuzz.slash",
        )


def _line(rng: random.Random) -> str:
    if rng.random() < 0.25:
        return rng.choice(("Who saw the fox?", values.text(rng), f'"""{values.text(rng)}"""'))
    if rng.random() < 0.25:
        return f"/read {rng.choice(('a.txt', 'folder', values.path(rng)))}"
    if rng.random() < 0.2:
        key = rng.choice(_SETTINGS)
        return f"/set {rng.choice(('parameter ', ''))}{key} {values.anything(rng, key)}"
    command = rng.choice(commands.COMMANDS)
    name = rng.choice(command.names)
    given = [values.anything(rng, "max_tokens") for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    given = [rng.choice((each, "1", "1-3", "work", "main", "#2")) for each in given]
    quoted = [f'"{each}"' if rng.random() < 0.3 else each for each in given]
    return " ".join((name, *quoted)).replace("\n", " ")


def main() -> None:
    """Take each line of stdin as typed at the prompt of a chat that is saved."""
    from nazx_cli.cli.app import handled
    from nazx_cli.ui.terminal.streams import open_streams

    open_streams()
    handled(_chat)()


def _chat() -> None:
    from nazx_cli.cli.shared.answers import AnswerOptions
    from nazx_cli.cli.shared.opening import Opening
    from nazx_cli.cli.shared.options import ChatOptions, ModelOptions, OutputOptions
    from nazx_cli.ui.repl import Repl

    model, answers = ModelOptions(model=MODEL, offline=True), AnswerOptions(max_tokens=2)
    options = ChatOptions(session="typed")
    chat = Opening((), model, answers, OutputOptions(), options, frozenset()).open()
    with create_app_session(input=DummyInput(), output=DummyOutput()):
        repl = Repl(chat, Path("home/history"))
        for line in sys.stdin:
            repl.handle(line)
            if chat.leaving:
                break
    chat.leave()
    chat.autosave.close()
