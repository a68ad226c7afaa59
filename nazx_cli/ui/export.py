"""A conversation as a Markdown file."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.documents.control import strip_control
from nazx_cli.errors import NazxError, UsageError
from nazx_cli.reading.passages import source_line

if TYPE_CHECKING:
    from nazx_cli.session.history import Turn
    from nazx_cli.session.workspace import Workspace


def export(workspace: Workspace, model: str, name: str, *, overwrite: bool = False) -> Path:
    """Write the transcript to file ``name``; the path.

    ``UsageError`` where the file is there and may not be overwritten.
    """
    path = Path(name).expanduser()
    text = "\n".join(_lines(workspace, model)) + "\n"
    try:
        with path.open("w" if overwrite else "x", encoding="utf-8", newline="\n") as file:
            file.write(strip_control(text))
    except FileExistsError:
        raise UsageError(
            f"{name} is there already", f'type /export "{name}" ! to overwrite it'
        ) from None
    except OSError as error:
        raise NazxError(
            f"{name} cannot be written: {error.strerror or error}", "name another file"
        ) from None
    return path


def _lines(workspace: Workspace, model: str) -> Iterator[str]:
    yield "# A conversation in NazX"
    yield ""
    yield f"{datetime.now():%Y-%m-%d %H:%M}, model {model}"
    if system := workspace.session.settings.system:
        yield ""
        yield f"System message: {system}"
    if workspace.documents:
        yield ""
        yield "Documents:"
        yield ""
        for number, part in enumerate(workspace.documents, 1):
            yield f"{number}. {part.document.name} ({len(part):,} tokens)"
    for number, turn in enumerate(workspace.session.turns, 1):
        yield from _turn(number, turn)


def _turn(number: int, turn: Turn) -> Iterator[str]:
    yield ""
    yield f"## {number}"
    yield ""
    # quoted, so that headings in a pasted question are not the transcript's own
    for line in turn.question.splitlines():
        yield f"> {line}".rstrip()
    yield ""
    yield turn.answer.strip()
    if turn.interrupted:
        yield ""
        yield "*(stopped before its end)*"
    if turn.sources:
        yield ""
        yield "Sources:"
        yield ""
        for at, passage in enumerate(turn.sources, 1):
            yield f"{at}. {source_line(passage)}"
