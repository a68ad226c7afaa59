"""``nazx use``, and first use: which model is taken where a command names none.

What is chosen is the default of ``--model`` in the file that ``nazx config`` keeps.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from nazx_cli.cli import config
from nazx_cli.cli.shared.options import (
    Json,
    ModelOptions,
    OutputOptions,
    Quiet,
    Report,
    model_names,
)
from nazx_cli.errors import NazxError
from nazx_cli.foreign import expanded
from nazx_cli.names import DEFAULT_MODEL, is_offline
from nazx_cli.ui.phrases import rate_text, size_text
from nazx_cli.ui.terminal.interrupts import INTERRUPTED
from nazx_cli.ui.terminal.tables import Table

if TYPE_CHECKING:
    from nazx_cli.memory.choosing import Offer
    from nazx_cli.memory.machine import Hardware
    from nazx_cli.ui.terminal.screen import Screen

_KEY = "model"
_VARIABLE = "NAZX_MODEL"
_LEAVING = ("q", "Q", "\x04", "\x1b")  # q, Ctrl-D, Escape


def use(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="Name, org/repo or folder.", autocompletion=model_names
        ),
    ] = None,
    *,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose the model that is used where none is named; without a name, say which it is.

    Example: nazx use nazx-smol-360m
    """
    report = Report(json=json, quiet=quiet)
    if name is None:
        chosen, by = _chosen()
        next_step = "nazx ls --all shows what runs here, nazx use NAME changes it"
        report.tell({"model": chosen, "by": by}, f"{chosen} ({by})", note=next_step)
        return
    kept, note = _choose(name)
    if variable := os.environ.get(_VARIABLE):
        note = f"{note}; {_VARIABLE} is set to {variable}, which comes first".removeprefix("; ")
    report.tell({"model": kept, "by": "nazx use"}, f"{kept} is used from now on", note=note)


def _chosen() -> tuple[str, str]:
    """The model that a command takes which names none, and what says so."""
    if variable := os.environ.get(_VARIABLE):
        return variable, _VARIABLE
    if _KEY in (values := config.read()):
        return str(values[_KEY]), "nazx use"
    return DEFAULT_MODEL, "the default"


def _choose(name: str) -> tuple[str, str]:
    """Remember a model, and whether it is still to be fetched; ``NazxError`` for none such."""
    from nazx_cli.catalog.model_ref import LocalModel, ModelRef, RegistryModel

    model = ModelRef.parse(name)
    kept = str(expanded(name).absolute()) if isinstance(model, LocalModel) else model.pinned
    config.keep(_KEY, kept)
    if model.present() is not None:
        return kept, ""
    size = ""
    if isinstance(model, RegistryModel):
        size = f" ({size_text(model.entry.download_bytes)})"
    later = f"it is not here yet and will be fetched when it is first used{size}"
    return kept, f"{later}; nazx use NAME takes another"


def first_choice(model: ModelOptions, output: OutputOptions, screen: Screen) -> ModelOptions:
    """``model``, which names none, with the one to use: where none has been fetched yet, that which
    the person chooses now, else the default; see ``remember``.

    Where there is nobody to ask a line says that it is the default. ``typer.Exit`` where the
    person leaves.
    """
    if _anything_here():
        return model
    if reason := _why_not_ask(model, output):
        screen.say(_taken(reason))
        return model
    with screen.bar("looking at this machine") as bar:
        bar.start()
        machine, offers, problem = _look(model.vram_limit)
    if len(offers) == 1:
        screen.say(_taken(problem or "no larger model fits this machine"))
        return model
    if problem:
        screen.say(f"{problem}\n")
    from nazx_cli.memory.choosing import recommended

    enter = recommended(machine, offers)
    _show(screen, machine, offers, enter)
    name = _asked(screen, [offer.entry.name for offer in offers], enter)
    return replace(model, model=name)


def remember(name: str, screen: Screen) -> None:
    """Keep what ``first_choice`` gave, now that the model is here: of one that could not be fetched
    the person is asked again. Where it cannot be kept that is told."""
    try:
        config.keep(_KEY, name)
    except NazxError as error:
        screen.error(error)
        return
    screen.note(f"{name} is used from now on; nazx use NAME changes it")


def _anything_here() -> bool:
    from nazx_cli.catalog.stored import models_folder
    from nazx_cli.checkpoint.checkpoint import is_complete

    return any(is_complete(folder) for folder in models_folder().glob("[!.]*"))


def _why_not_ask(model: ModelOptions, output: OutputOptions) -> str:
    """Why the person cannot be asked; empty where they can."""
    if is_offline(model.offline):
        return "offline"
    streams = (sys.stdin, sys.stderr)
    on_terminal = all(each is not None and each.isatty() for each in streams)
    return "" if on_terminal and not (output.json or output.quiet) else "no model was chosen"


def _taken(reason: str) -> str:
    from nazx_cli.catalog.registry import Registry

    entry = Registry.load().entries[DEFAULT_MODEL]
    about = f"{size_text(entry.download_bytes)}, {entry.licence}"
    return f"{reason}: using {entry.name} ({about}); nazx use NAME takes another"


def _look(limit: int | None) -> tuple[Hardware, Sequence[Offer], str]:
    """This machine, what to offer, and why the Hub's models cannot be had; empty where they can."""
    from nazx_cli.catalog.hub import has_token
    from nazx_cli.memory.choosing import suggestions
    from nazx_cli.memory.machine import this_machine

    with ThreadPoolExecutor(1) as pool:
        hub = pool.submit(_hub_problem)  # while memory is measured
        machine = this_machine()
        problem = hub.result()
    return machine, suggestions(machine, limit, hub=not problem, gated=has_token()), problem


def _hub_problem() -> str:
    from nazx_cli.catalog.hub import check_reachable
    from nazx_cli.errors import ModelUnavailableError

    try:
        check_reachable()
    except ModelUnavailableError as error:
        return f"{error.message}, so that only models of the package index can be had"
    return ""


def _show(screen: Screen, machine: Hardware, offers: Sequence[Offer], enter: int) -> None:
    from nazx_cli.memory.choosing import wait

    screen.say(f"No model has been chosen yet. This machine ({machine}) can run:\n")
    rows = [
        (
            str(number),
            entry.name,
            size_text(entry.download_bytes),
            rate_text(found.speed),
            _about(wait(entry, machine)) if entry.reader_folder is not None else "",
            entry.licence,
            entry.good_at,
        )
        for number, (entry, found) in enumerate(offers, 1)
    ]
    headings = ("", "NAME", "DOWNLOAD", "UP TO", "WAIT", "LICENCE", "GOOD AT")
    screen.say(Table(rows, headings, right=(2, 3, 4), spare=(6, 3)))
    last = len(offers)
    why = "the smallest" if enter == last - 1 else "which answers about documents"
    screen.say(f"\nPress 1 to {last}; Enter takes {enter + 1}, {why}; q leaves.")


def _about(seconds: float) -> str:
    """``7 s``: how long a question about a book takes, about; empty where nobody knows."""
    return f"{math.ceil(seconds):,} s" if seconds else ""


def _asked(screen: Screen, names: Sequence[str], enter: int) -> str:
    from nazx_cli.ui.terminal.keys import read_key

    while True:
        try:
            key = read_key()
        except KeyboardInterrupt:
            key = _LEAVING[0]
        if key in _LEAVING:
            screen.note("nothing was chosen, nothing was changed")
            raise typer.Exit(INTERRUPTED)
        if key == "\n":
            return names[enter]
        if key in map(str, range(1, len(names) + 1)):
            return names[int(key) - 1]
