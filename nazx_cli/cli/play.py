"""``nazx play``: the Next Token Game."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from nazx_cli.amounts import parse_count
from nazx_cli.cli.shared.options import (
    Device,
    Files,
    Offline,
    OutputOptions,
    Quiet,
    count_option,
    make_screen,
    model_names,
    option,
)
from nazx_cli.errors import UsageError
from nazx_cli.names import DEFAULT_MODEL
from nazx_cli.ui.terminal.interrupts import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nazx_cli.game.match import Player
    from nazx_cli.game.words import Story
    from nazx_cli.ui.terminal.screen import Screen

_SIGHTS = ("16", "128", "all")
_ALL = "all"
_SEEDS = 10_000


def play(
    model: Annotated[
        list[str] | None,
        option(
            "--model",
            "Model to play against. May be repeated.",
            "-m",
            metavar="NAME",
            autocompletion=model_names,
        ),
    ] = None,
    context: Annotated[
        list[str] | None,
        option(
            "--context",
            "Tokens that a player of each model sees, or all. May be repeated. "
            f"Default: {', '.join(_SIGHTS)}.",
            metavar="N",
        ),
    ] = None,
    rounds: Annotated[int, count_option("--rounds", "Words to guess.")] = 10,
    seed: Annotated[
        int | None, option("--seed", "Same seed, same game. Default: a new one.", metavar="N")
    ] = None,
    file: Files = None,
    device: Device = "auto",
    *,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Guess the next word of a story, against models that see less of it.

    Enter passes, ? shows the first letter for half of the points, Ctrl-C ends the game with the
    score so far. See nazx help play.

    Example: nazx play
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the game needs a terminal", "run nazx play in one")
    sights = [_sight(each) for each in dict.fromkeys(context or _SIGHTS)]
    screen = make_screen(OutputOptions(quiet=quiet))
    screen.start_computing()
    from nazx_cli.game.match import Match
    from nazx_cli.game.words import choose

    if seed is None:
        seed = random.randrange(_SEEDS)
    stories, about = _stories(file, screen)
    story, questions = choose(stories, rounds, seed)
    models = list(dict.fromkeys(model or [DEFAULT_MODEL]))
    match = Match(
        [each for name in models for each in _players(name, sights, screen, device, offline)]
    )
    from nazx_cli.ui.play import Play

    screen.line(f"{story.title}{about}\n? shows the first letter, Enter passes, Ctrl-C ends")
    game = Play(match, questions, screen)
    ended = game.run()
    if not (ended or match.rounds):
        raise typer.Exit(INTERRUPTED)
    game.finish()
    screen.note(f"the same game again: --seed {seed}")


def _sight(typed: str) -> int | None:
    return None if typed == _ALL else parse_count(typed, 1)


def _stories(files: Sequence[str] | None, screen: Screen) -> tuple[list[Story], str]:
    """What is played on, and where it is from."""
    from nazx_cli.game.words import ABOUT_TALES, Story, tales

    if not files:
        return tales(), f", {ABOUT_TALES}"
    if "-" in files:
        raise UsageError("the game reads words from stdin", "give the file's name")
    from nazx_cli.cli.shared.documents import read_documents

    documents = read_documents(files, screen)
    return [Story(document.name, document.text) for document in documents], ""


def _players(
    name: str, sights: Sequence[int | None], screen: Screen, device: str, offline: bool
) -> list[Player]:
    """A player for each sight, all of one model."""
    from nazx_cli.engine.language_model import load_model
    from nazx_cli.game.guessing import Guesser
    from nazx_cli.game.match import Player, sight
    from nazx_cli.game.words import Question
    from nazx_cli.names import NO_ADAPTER

    with screen.long_work(f"loading {name}") as bar:
        lm = load_model(
            name,
            device=device,
            dtype="auto",
            offline=offline,
            adapter=NO_ADAPTER,
            on_progress=bar.update,
        )
        # What is compiled at first use is compiled now, not while the person waits for a guess.
        Guesser(lm, None).guess(Question("Once upon a ", "time"))
    return [Player(f"{name}, {sight(sees)}", Guesser(lm, sees), name, sees) for sees in sights]
