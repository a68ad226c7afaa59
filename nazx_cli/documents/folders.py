"""Finding the files of a folder or a glob, without what its ``.gitignore`` files leave out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.documents.document import Skipped

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec


_FILE = ".gitignore"
_EXCLUDE = Path(".git", "info", "exclude")


@dataclass(frozen=True)
class _Rules:
    """The patterns of one file, and what they are relative to: an absolute path."""

    base: str
    file: Path
    lines: tuple[str, ...]
    spec: GitIgnoreSpec

    def decide(self, path: str, is_folder: bool) -> tuple[bool, str] | None:
        """True with the pattern that ignores ``path``, False with the one that keeps it."""
        below = os.path.relpath(path, self.base).replace(os.sep, "/") + "/" * is_folder
        result = self.spec.check_file(below)
        if result.include is None or result.index is None:
            return None
        return result.include, self.lines[result.index]


class IgnoreRules:
    """The rules that hold below a folder: its own, and those of the repository it is part of.

    As in git, a file's rules hold below the folder it stands in, deeper files win, and what is in
    an ignored folder cannot be taken back. A folder that was asked for by name is not ignored.
    """

    def __init__(self, folder: Path) -> None:
        """``folder`` is absolute, without links in it."""
        outer = _outer_rules(folder)
        if _verdict(outer, str(folder), is_folder=True):
            outer = ()
        self._chains: dict[str, tuple[_Rules, ...]] = {str(folder.parent): outer}

    def enter(self, folder: str) -> None:
        """Take in the rules of a folder, whose parent was entered before."""
        above = self._chains[os.path.dirname(folder)]  # noqa: PTH120 a Path for each is slow
        own = _read_rules(Path(folder, _FILE), folder)
        self._chains[folder] = (*above, own) if own else above

    def ignored_by(self, folder: str, name: str, is_folder: bool) -> str | None:
        """The rule that leaves out ``name`` in a folder entered before, in words; else None."""
        chain = self._chains[folder]
        return _verdict(chain, f"{folder}{os.sep}{name}", is_folder) if chain else None


def _verdict(chain: tuple[_Rules, ...], path: str, is_folder: bool) -> str | None:
    for rules in reversed(chain):
        decision = rules.decide(path, is_folder)
        if decision is not None:
            ignored, pattern = decision
            return f"{pattern} in {rules.file}" if ignored else None
    return None


def _outer_rules(folder: Path) -> tuple[_Rules, ...]:
    """Rules from the root of the repository that ``folder`` is in, down to its parent."""
    above = [folder, *folder.parents]
    root = next((at for at, path in enumerate(above) if (path / ".git").exists()), None)
    if root is None:
        return ()
    found = [_read_rules(above[root] / _EXCLUDE, str(above[root]))]
    found += [_read_rules(path / _FILE, str(path)) for path in reversed(above[1 : root + 1])]
    return tuple(rules for rules in found if rules)


def _read_rules(file: Path, base: str) -> _Rules | None:
    """The rules in ``file``; None where there is no such file, or none in it that can be read."""
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    from pathspec import GitIgnoreSpec

    shown: list[str] = []
    lines: list[str] = []
    for line in map(str.rstrip, text.split("\n")):
        # git: "a/**" is what is in a, not a itself; pathspec would take a for it too
        strict = f"{line}/*" if line.endswith("/**") else line
        try:
            count = len(GitIgnoreSpec.from_lines([strict]).patterns)
        except ValueError:  # git passes over such lines too
            continue
        shown += [line] * count
        lines += [strict] * count
    return _Rules(base, file, tuple(shown), GitIgnoreSpec.from_lines(lines)) if lines else None


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
