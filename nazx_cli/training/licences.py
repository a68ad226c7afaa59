"""The licence that lies beside data, for the cards of what was trained on it."""

from __future__ import annotations

from pathlib import Path


def licence_in(folder: Path) -> str:
    """The first line of the licence's file in ``folder``, fit for a cell of a table."""
    found = sorted(folder.glob("LICENSE*"))
    text = found[0].read_text(encoding="utf-8", errors="replace").strip() if found else ""
    first = (text.splitlines() or [""])[0][:80].replace("|", "/")
    return first or "not known here"


def licence_of(path: Path) -> str:
    """The same for a file, or for a folder of them."""
    return licence_in(path if path.is_dir() else path.parent)
