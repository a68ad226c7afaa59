"""Finding the files of a folder or a glob."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

from nazx_cli.documents.document import Skipped
from nazx_cli.documents.ignore import IgnoreRules


@dataclass
class Found:
    """Files by the name to show them under, and what was left out without being opened."""

    files: list[tuple[str, Path]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def walk(spec: str, folder: Path) -> Found:
    """Files below ``folder``, sorted by path, shown under ``spec``.

    Hidden files and folders are left out, as is what a ``.gitignore`` names: one entry in
    ``skipped`` for each of its patterns, however much it matches.
    """
    found = Found()
    base = os.path.realpath(folder)
    rules = IgnoreRules(Path(base))
    ignored: dict[str, list[str]] = {}

    def refused(error: OSError) -> None:
        found.skipped.append(Skipped(_shown(spec, base, str(error.filename)), "may not be listed"))

    for at, folders, names in os.walk(base, onerror=refused):
        rules.enter(at)

        def kept(name: str, is_folder: bool, at: str = at) -> bool:
            if name.startswith("."):
                return False
            rule = rules.ignored_by(at, name, is_folder)
            if rule is not None:
                shown = _shown(spec, base, f"{at}{os.sep}{name}")
                ignored.setdefault(rule, []).append(shown + os.sep * is_folder)
            return rule is None

        folders[:] = [name for name in folders if kept(name, True)]
        found.files += [
            (_shown(spec, base, f"{at}{os.sep}{name}"), Path(at, name))
            for name in names
            if kept(name, False)
        ]
    found.files.sort(key=lambda item: item[1].parts)
    found.skipped += [
        _ignored(rule.replace(base, spec), names) for rule, names in sorted(ignored.items())
    ]
    return found


def expand(pattern: Path) -> Iterator[tuple[str, Path]]:
    """Files that a glob matches, hidden ones left out, sorted by name."""
    # glob.glob, for Path.glob takes no absolute patterns and finds hidden files
    for name in sorted(glob(str(pattern), recursive=True)):  # noqa: PTH207
        if not Path(name).is_dir():
            yield name, Path(name)


def _shown(spec: str, base: str, path: str) -> str:
    return str(Path(spec, os.path.relpath(path, base)))


def _ignored(rule: str, names: list[str]) -> Skipped:
    if len(names) == 1:
        return Skipped(names[0], f"is ignored by {rule}")
    return Skipped(f"{min(names)} and {len(names) - 1:,} more", f"are ignored by {rule}")
