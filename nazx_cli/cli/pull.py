"""``nazx pull``: a model on to this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nazx_cli.cli.options import Json, Offline, OutputOptions, Quiet, Revision

if TYPE_CHECKING:
    from nazx_cli.catalog.resolve import CalledName
    from nazx_cli.ui.screen import Screen


def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name or org/repo.")],
    *,
    revision: Revision = None,
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch a model, or the newest version of one that is there.

    Only what NazX needs comes down, and never a pickle. A pull that was stopped goes on where it
    was. Set HF_TOKEN for private and gated models.

    Example: nazx pull nazx-smol-360m
    """
    from nazx_cli.catalog.resolve import parse_name
    from nazx_cli.cli.options import make_screen

    screen = make_screen(OutputOptions(json=json, quiet=quiet))
    called = parse_name(name, revision)
    if called.folder is not None:
        from nazx_cli.errors import UsageError

        raise UsageError(
            f"{name} is a folder on this machine already", f"use it: nazx chat -m {name}"
        )
    folder = _fetch(name, revision, offline, screen)
    _report(called, folder, screen, as_json=json)


def _fetch(name: str, revision: str | None, offline: bool, screen: Screen) -> Path:
    from nazx_cli.catalog.resolve import resolve_model

    with screen.bar(f"pulling {name}") as bar:
        bar.start()
        return resolve_model(
            name, revision=revision, offline=offline, refresh=True, on_progress=bar.update
        )


def _report(called: CalledName, folder: Path, screen: Screen, *, as_json: bool) -> None:
    from nazx_cli.catalog.hub import snapshot_origin
    from nazx_cli.catalog.store import checkpoint_bytes
    from nazx_cli.checkpoint.write import Origin
    from nazx_cli.ui.phrases import size_text

    origin = snapshot_origin(folder) or Origin.read(folder)
    nbytes = checkpoint_bytes(folder)
    if as_json:
        screen.data(
            {
                "name": called.name,
                "path": str(folder),
                "bytes": nbytes,
                "source": origin.source if origin else None,
                "revision": called.revision,
                "commit": origin.commit if origin else None,
            }
        )
        return
    name = f"{called.name}@{called.revision}" if called.revision else called.name
    came = f", from {origin}" if origin else ""
    screen.line(f"{name} is ready: {size_text(nbytes)}{came}")
    screen.note(f"in {folder}; try: nazx chat -m {name}")
