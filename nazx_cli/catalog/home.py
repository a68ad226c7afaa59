"""Where NazX keeps its own files: converted models, and later sessions and settings."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path


def nazx_home() -> Path:
    """``NAZX_HOME``, else ``nazx`` in the platform's data folder; it need not exist yet."""
    chosen = os.environ.get("NAZX_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return _data_folder() / "nazx"


def models_folder() -> Path:
    """Folder of the converted checkpoints, one sub-folder each; it need not exist yet."""
    return nazx_home() / "models"


def converted_folder(name: str, revision: str | None = None) -> Path:
    """Where the converted checkpoint of the registry's ``name`` lies, once it is there."""
    suffix = "@" + re.sub(r"[^\w.-]", "-", revision) if revision else ""
    return models_folder() / (name + suffix)


def _data_folder() -> Path:
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Application Support"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    chosen = os.environ.get("XDG_DATA_HOME")
    # The XDG specification has relative values ignored.
    if chosen and Path(chosen).is_absolute():
        return Path(chosen)
    return home / ".local" / "share"
