"""``nazx sessions``: what was said and saved; listed, shown, searched, removed, repaired."""

from __future__ import annotations

import json as _json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nazx_cli.cli.shared.options import Json, Report, Yes, confirm, option, session_names
from nazx_cli.errors import NazxError, UsageError

if TYPE_CHECKING:
    from nazx_cli.session.saving.store import Store

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The session.", autocompletion=session_names)
]
_FORMATS = ("markdown", "json")


def sessions(context: typer.Context, *, json: Json = False) -> None:
    """List the saved sessions, or show, search, export, remove or repair them.

    Example: nazx sessions search umbrella
    """
    if context.invoked_subcommand is None:
        list_all(json=json)


def list_all(*, json: Json = False) -> None:
    """List the saved sessions, the last one first.

    Example: nazx sessions list
    """
    from nazx_cli.ui.saved import facts, table

    infos = _store().infos()
    report = Report(json=json)
    if infos:
        report.tell([facts(info) for info in infos], table(infos))
    else:
        report.tell([], note="no session is saved yet; next: nazx chat")


def show(name: Name, *, json: Json = False) -> None:
    """Print what was said in a session.

    Example: nazx sessions show work
    """
    from nazx_cli.ui.export import as_data, as_markdown

    said = _store().read(name)
    Report(json=json).tell({"name": name, **as_data(said)}, as_markdown(said).rstrip())


def export(
    name: Name,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="Where to. Default: NAME.md or NAME.json."),
    ] = None,
    *,
    format: Annotated[str, option("--format", "What to write.", choices=_FORMATS)] = "markdown",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also where the file is there already.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a session's conversation to a file.

    Example: nazx sessions export work notes.md
    """
    from nazx_cli.documents.control import strip_control
    from nazx_cli.ui.export import as_data, as_markdown
    from nazx_cli.ui.export import export as write
    from nazx_cli.ui.phrases import counted

    said = _store().read(name)
    if format == "json":
        text = _json.dumps({"name": name, **as_data(said)}, indent=2) + "\n"
    else:
        text = as_markdown(said)
    target = file or f"{name}.{'json' if format == 'json' else 'md'}"
    path = write(text, target, overwrite=overwrite, how="add --overwrite, or name another file")
    facts = {"name": name, "path": str(path), "format": format, "turns": len(said.turns)}
    Report(json=json).tell(
        facts, strip_control(f"wrote {counted(len(said.turns), 'turn')} of {name} to {path}")
    )


def search(
    words: Annotated[list[str], typer.Argument(metavar="WORDS...", help="What to look for.")],
    *,
    json: Json = False,
) -> None:
    """Find the turns, of all sessions, whose question and answer have all of these words.

    Example: nazx sessions search red umbrella
    """
    from nazx_cli.ui.saved import matches
    from nazx_cli.ui.terminal.tables import Table

    wanted = " ".join(words).split()
    if not wanted:
        raise UsageError("there is nothing to look for", "as in: nazx sessions search umbrella")
    store = _store()
    found: list[tuple[str, int, str]] = []
    closed: list[str] = []
    for name in store.names():
        try:
            said = store.read(name)
        except NazxError as error:
            closed.append(error.message)
        else:
            found += [(name, number, text) for number, text in matches(said, wanted)]
    facts = [{"name": name, "turn": number, "text": text} for name, number, text in found]
    rows = [(f"{name}:{number}", text) for name, number, text in found]
    notes = [f"note: {message}" for message in closed]
    if not found:
        notes.append("nothing was found")
    Report(json=json).tell(facts, *([Table(rows)] if rows else []), note="\n".join(notes))


def rm(
    name: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="The sessions.", autocompletion=session_names),
    ],
    *,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove sessions.

    Example: nazx sessions rm work
    """
    store, names = _store(), list(dict.fromkeys(name))
    for each in names:
        store.require(each)
    if not yes:
        confirm(", ".join(names))
    store.remove(*names)
    Report(json=json).tell({"removed": names}, *(f"removed {each}" for each in names))


def repair(name: Name, *, json: Json = False) -> None:
    """Save what can be read of a damaged session.

    The damaged file is kept beside, and what is lost is told.

    Example: nazx sessions repair work
    """
    from nazx_cli.ui.phrases import counted

    done = _store().repair(name)
    facts: dict[str, Any] = {
        "name": name,
        "repaired": done.kept is not None,
        "turns": done.turns,
        "documents": done.documents,
        "lost": list(done.lost),
        "kept": str(done.kept) if done.kept else None,
    }
    held = f"{counted(done.turns, 'turn')} and {counted(done.documents, 'document')}"
    if done.kept is None:
        Report(json=json).tell(facts, f"{name} is whole: {held}")
        return
    lost = [f"lost: {each}" for each in done.lost]
    note = f"the damaged file is kept: {done.kept}"
    Report(json=json).tell(facts, f"repaired {name}: {held}", *lost, note=note)


def _store() -> Store:
    from nazx_cli.catalog.stored import nazx_home
    from nazx_cli.session.saving.store import Store

    return Store(nazx_home() / "sessions")


COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("list", list_all),
    ("show", show),
    ("export", export),
    ("search", search),
    ("rm", rm),
    ("repair", repair),
)
