"""Where a model lies on this machine, damaged or not, and how to get a sound one."""

from __future__ import annotations

from pathlib import Path

from nazx_cli.catalog.hub import snapshot_folder
from nazx_cli.catalog.hub_cache import plan_deletion
from nazx_cli.catalog.resolve import converted_folder, parse_name
from nazx_cli.checkpoint.write import Origin
from nazx_cli.errors import ModelUnavailableError


def place_of(name: str, revision: str | None = None) -> Path:
    """The folder of the model ``name``; unlike ``locate_model`` it need not be whole.

    ``ModelUnavailableError`` where there is none.
    """
    called = parse_name(name, revision)
    if called.folder is not None:
        return called.folder
    if called.entry is not None:
        folder: Path | None = converted_folder(called.entry.name, called.revision)
    else:
        folder = snapshot_folder(called.name, called.revision)
    if folder is None or not folder.is_dir():
        raise ModelUnavailableError(f"{name} is not on this machine", f"nazx pull {name}")
    return folder


def repair_command(name: str, revision: str | None = None) -> str:
    """What to type to replace a damaged model ``name``."""
    called = parse_name(name, revision)
    if called.folder is not None:
        return "take another copy of the folder"
    pinned = f"{called.name}@{called.revision}" if called.revision else called.name
    removed = [pinned]
    if called.entry is not None:
        # The converted model may share its files with the Hub's cache: both have to go.
        origin = Origin.read(converted_folder(called.name, called.revision))
        if origin is not None and origin.kind == "hub" and plan_deletion(origin.source):
            removed.append(origin.source)
    return f"nazx rm {' '.join(removed)} && nazx pull {pinned}"
