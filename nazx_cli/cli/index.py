"""``nazx index``: what the index of documents takes of the disk; emptying it."""

from __future__ import annotations

from collections.abc import Callable

import typer

from nazx_cli.cli.shared.options import Json, Report, Yes, confirm


def index(context: typer.Context, *, json: Json = False) -> None:
    """Show what the index of documents takes of the disk, or empty it.

    Example: nazx index
    """
    if context.invoked_subcommand is None:
        show(json=json)


def show(*, json: Json = False) -> None:
    """Show what the index of documents takes of the disk.

    Example: nazx index show
    """
    from nazx_cli.index import room
    from nazx_cli.ui.phrases import size_text

    folder = room.index_folder()
    size, count = room.nbytes(folder), room.num_segments(folder)
    facts = {"folder": str(folder), "bytes": size, "files": count}
    Report(json=json).tell(facts, f"{folder}: {size_text(size)} in {count:,} files")


def clear(*, yes: Yes = False, json: Json = False) -> None:
    """Empty the index of documents; what is asked about again is taken in again.

    Example: nazx index clear --yes
    """
    from nazx_cli.index import room
    from nazx_cli.ui.phrases import size_text

    folder = room.index_folder()
    size = room.nbytes(folder)
    if not yes:
        confirm(f"{size_text(size)} in {folder}")
    room.clear(folder)
    Report(json=json).tell({"removed": size}, f"removed {size_text(size)}")


COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (("show", show), ("clear", clear))
