"""``nazx rm``: models off this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nazx_cli.cli.options import Json, OutputOptions
from nazx_cli.errors import UsageError

if TYPE_CHECKING:
    from nazx_cli.catalog.removal import Removal
    from nazx_cli.ui.screen import Screen


def rm(
    name: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names or org/repo.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove models from this machine.

    Those that nazx pull brought; org/repo is removed from the Hub's cache. A converted model may
    share its weights with that cache: their bytes are free once both are removed.

    Example: nazx rm nazx-70m EleutherAI/pythia-70m
    """
    from nazx_cli.catalog.removal import freed_bytes, plan_removal
    from nazx_cli.cli.options import make_screen

    screen = make_screen(OutputOptions(json=json))
    removals = [plan_removal(each) for each in dict.fromkeys(name)]
    freed = freed_bytes(removals)
    if not dry_run and not yes:
        _confirm(removals, freed)
    if not dry_run:
        for removal in removals:
            removal.execute()
    if json:
        screen.data(
            {
                "removed": [removal.name for removal in removals],
                "paths": [str(folder) for removal in removals for folder in removal.folders],
                "freed_bytes": freed,
                "dry_run": dry_run,
            }
        )
    else:
        _report(removals, freed, screen, dry_run=dry_run)


def _confirm(removals: Sequence[Removal], freed: int) -> None:
    """Ask; leave where the answer is not yes, refuse where there is nobody to ask."""
    from nazx_cli.ui.phrases import size_text

    names = ", ".join(removal.name for removal in removals)
    if not (sys.stdin is not None and sys.stdin.isatty()):
        raise UsageError(
            f"removing {names} needs a yes, and there is no terminal to ask on", "add --yes"
        )
    print(f"remove {names}, {size_text(freed)}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        print("nothing was removed", file=sys.stderr)
        raise typer.Exit(1)


def _report(removals: Sequence[Removal], freed: int, screen: Screen, *, dry_run: bool) -> None:
    from nazx_cli.ui.phrases import size_text

    for removal in removals:
        verb = "would remove" if dry_run else "removed"
        screen.line(f"{verb} {removal.name}: {', '.join(map(str, removal.folders))}")
    screen.line(f"{size_text(freed)} {'would be ' if dry_run else ''}freed")
    names = {removal.name for removal in removals}
    kept = dict.fromkeys(each.kept for each in removals if each.kept and each.kept not in names)
    if kept:
        repos = " ".join(kept)
        screen.note(f"the Hub's cache keeps {repos}; next: nazx rm {repos}")
