"""``nazx verify``: is a model whole and sound?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nazx_cli.cli.options import Json, OutputOptions, Quiet, Revision
from nazx_cli.errors import ModelUnavailableError

if TYPE_CHECKING:
    from nazx_cli.catalog.verify import Verified
    from nazx_cli.ui.screen import Screen


def verify(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name, org/repo or folder.")],
    *,
    revision: Revision = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check that a model is whole and sound.

    Reads all of it: headers, shapes, every value, the tokenizer, recorded hashes. Leaves with 0
    where all is right, with 5 and the broken file's name where it is not.

    Example: nazx verify nazx-1b
    """
    from nazx_cli.catalog.locate import place_of, repair_command
    from nazx_cli.cli.options import make_screen

    screen = make_screen(OutputOptions(json=json, quiet=quiet))
    folder = place_of(name, revision)
    try:
        found = _verify(folder, name, screen)
    except ModelUnavailableError as error:
        hint = repair_command(name, revision)
        if json:
            screen.data(
                {"name": name, "path": str(folder), "ok": False, "problem": error.message}
                | {"next": hint}
            )
        raise ModelUnavailableError(error.message, hint) from None
    if json:
        screen.data(
            {
                "name": name,
                "path": str(folder),
                "ok": True,
                "tensors": found.tensors,
                "bytes": found.nbytes,
                "hashed_files": found.hashed,
            }
        )
    else:
        _report(name, found, screen)


def _verify(folder: Path, name: str, screen: Screen) -> Verified:
    from nazx_cli.catalog.verify import verify_checkpoint

    with screen.bar(f"verifying {name}") as bar:
        bar.start()
        return verify_checkpoint(folder, bar.update)


def _report(name: str, found: Verified, screen: Screen) -> None:
    from nazx_cli.ui.phrases import size_text

    hashes = f"hashes of files that match: {found.hashed}"
    if found.unhashed:
        hashes += f"; none is known for {', '.join(found.unhashed)}"
    screen.line(
        f"{name} is whole: {found.tensors:,} tensors, {size_text(found.nbytes)}, "
        f"all values finite; {hashes}"
    )
