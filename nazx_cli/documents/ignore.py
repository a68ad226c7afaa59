"""What ``.gitignore`` files leave out of a folder, as git understands them.

Matching takes time by the product of a pattern's length and a path's at most: a ``*`` or ``**``
takes the first place where what follows it fits, which is as good as any later one.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

_FILE = ".gitignore"
_EXCLUDE = Path(".git", "info", "exclude")
_MOST_BYTES = 1 << 18  # of a file
_MOST_PATTERNS = 2000
_LONGEST = 4096  # characters of a pattern, as of a path

_ELEMENT = re.compile(  # of a segment; a bracket or backslash that fits none of them is a mistake
    r"\[(?P<set>[!^]?\]?(?:\[:\w+:\]|\\.|[^\]\\])*)\]|\\(?P<escaped>.)|(?P<one>\?)|(?P<plain>[^\\\[])",
    re.DOTALL,
)
_MEMBER = re.compile(r"\[:(?P<kind>\w+):\]|\\?(?P<low>.)(?:-\\?(?P<high>.))?", re.DOTALL)
_KINDS = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\s",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}

_Segment = re.Pattern[str] | None
"""One of a pattern: what a name must match, or None for ``**``."""


class IgnoreRules:
    """The rules that hold below a folder: its own, and those of the repository it is part of.

    As in git, a file's rules hold below the folder it stands in, deeper files win, and what is in
    an ignored folder cannot be taken back. A folder that was asked for by name is not ignored.
    ``cut_short`` are files that have more patterns than are looked at.
    """

    def __init__(self, folder: Path) -> None:
        """``folder`` is absolute, without links in it."""
        outer = _outer_rules(folder)
        above = [folder, *folder.parents]
        if any(_verdict(outer, str(path), is_folder=True) for path in above):
            outer = ()
        self._chains: dict[str, tuple[_Rules, ...]] = {str(folder.parent): outer}
        self.cut_short = [rules.file for rules in outer if rules.cut_short]

    def enter(self, folder: str) -> None:
        """Take in the rules of a folder, whose parent was entered before."""
        above = self._chains[os.path.dirname(folder)]  # noqa: PTH120 a Path for each is slow
        own = _read_rules(Path(folder, _FILE), folder)
        self._chains[folder] = (*above, own) if own else above
        if own and own.cut_short:
            self.cut_short.append(own.file)

    def ignored_by(self, folder: str, name: str, is_folder: bool) -> str | None:
        """The rule that leaves out ``name`` in a folder entered before, in words; else None."""
        chain = self._chains[folder]
        return _verdict(chain, f"{folder}{os.sep}{name}", is_folder) if chain else None


@dataclass(frozen=True)
class _Pattern:
    """A line of a file: ``segments`` below the file's folder; of one that may stand anywhere below
    it, the last alone."""

    line: str
    keeps: bool
    folders_only: bool
    anywhere: bool
    segments: tuple[_Segment, ...]

    def fits(self, parts: Sequence[str], is_folder: bool) -> bool:
        """Whether it names the path of ``parts``, itself and not what is below it."""
        if self.folders_only and not is_folder:
            return False
        return _fit(self.segments, parts[-1:] if self.anywhere else parts)


@dataclass(frozen=True)
class _Rules:
    """The patterns of one file, last first, and what they are relative to: an absolute path."""

    base: str
    file: Path
    patterns: tuple[_Pattern, ...]
    cut_short: bool

    def decide(self, path: str, is_folder: bool) -> tuple[bool, str] | None:
        """True with the pattern that ignores ``path``, False with the one that keeps it."""
        above = self.base.rstrip(os.sep) + os.sep
        if not path.startswith(above):
            return None
        parts = path[len(above) :].split(os.sep)  # noqa: PTH206 a Path for each is slow
        for pattern in self.patterns:
            if pattern.fits(parts, is_folder):
                return not pattern.keeps, pattern.line
        return None


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
    """The rules in ``file``; None where there is no such regular file, or no pattern in it."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return None
        with file.open("rb") as opened:
            data = opened.read(_MOST_BYTES)
            more = bool(opened.read(1))
    except OSError:
        return None
    lines = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff").split("\n")
    found = _patterns(lines[:-1] if more else lines)
    patterns = tuple(islice(found, _MOST_PATTERNS))
    more = more or next(found, None) is not None
    return _Rules(base, file, patterns[::-1], more) if patterns else None


def _patterns(lines: Sequence[str]) -> Iterator[_Pattern]:
    for line in lines:
        pattern = _pattern(line.removesuffix("\r"))
        if pattern:
            yield pattern


def _pattern(line: str) -> _Pattern | None:
    """What a line says; None for a comment, and for one that git passes over."""
    bare = line.rstrip(" ")
    if bare != line and (len(bare) - len(bare.rstrip("\\"))) % 2:
        bare += " "  # which is escaped
    if not bare or bare.startswith("#") or len(bare) > _LONGEST:
        return None
    body = bare.removeprefix("!")
    names = body.rstrip("/").split("/")
    anywhere = len(names) == 1
    if names[0] == "" and not anywhere:
        names = names[1:]
    segments: list[_Segment] = []
    for name in names:
        if name == "**" and not anywhere:
            if not (segments and segments[-1] is None):
                segments.append(None)
            continue
        segment = _segment(name)
        if segment is None:
            return None
        segments.append(segment)
    if segments[-1] is None:  # what is inside of a folder, not the folder itself
        segments.append(_ANYTHING)
    return _Pattern(bare, bare != body, body.endswith("/"), anywhere, tuple(segments))


_ANYTHING, _NOTHING = re.compile(""), re.compile("(?!)")


def _segment(text: str) -> re.Pattern[str] | None:
    """What a name must match; None where it says nothing, or leaves a bracket or backslash open."""
    runs = [""]  # what stands between stars
    at = 0
    while at < len(text):
        if text[at] == "*":
            runs.append("")
            at += 1
            continue
        found = _ELEMENT.match(text, at)
        character = found and _character(found)
        if not found or character is None:
            return None
        at = found.end()
        runs[-1] += character
    if not text:
        return None
    first, *others = runs
    if not others:
        return re.compile(rf"{first}\Z", re.DOTALL)
    *middle, last = others
    # A group that was found by looking ahead is not looked for again where what follows fails.
    taken = "".join(f"(?=(?P<r{n}>.*?{run}))(?P=r{n})" for n, run in enumerate(middle) if run)
    return re.compile(rf"{first}{taken}.*{last}\Z", re.DOTALL)


def _character(found: re.Match[str]) -> str | None:
    """An expression for one character; None for one of a kind that there is not."""
    if found["one"]:
        return "."
    if found["set"] is None:
        return re.escape(found["escaped"] or found["plain"])
    body = found["set"]
    negated = body.startswith(("!", "^"))
    members = ""
    for member in _MEMBER.finditer(body, int(negated)):
        low, high = member["low"], member["high"]
        if low is None:
            if member["kind"] not in _KINDS:
                return None
            members += _KINDS[member["kind"]]
        elif high is None:
            members += re.escape(low)
        elif low <= high:
            members += f"{re.escape(low)}-{re.escape(high)}"
    if members:
        return f"[{'^' * negated}{members}]"
    return "." if negated else "(?!)"


def _fit(segments: Sequence[_Segment], parts: Sequence[str]) -> bool:
    """Whether ``segments`` match all of ``parts``."""
    at = part = 0
    back: tuple[int, int] | None = None  # behind the last "**", and the part that it reaches to
    while part < len(parts):
        segment = segments[at] if at < len(segments) else _NOTHING
        if segment is None:
            at += 1
            back = at, part
        elif segment.match(parts[part]):
            at, part = at + 1, part + 1
        elif back is not None:
            back = back[0], back[1] + 1
            at, part = back
        else:
            return False
    return at == len(segments)
