"""Folders with ``.gitignore`` files of every kind, links, pipes and devices in them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

from fuzz.law import MODEL, Case
from fuzz.mutate import mutated

_TOKENS = (
    *(b"*", b"**", b"/", b"/**/", b"!", b"#", b"[", b"]", b"[z-a]", b"[!a]", b"[[:alpha:]]", b"\\"),
    *(b"*a", b"**/a/", b"a\n", b"\n", b" ", b"\r", b"[a-", b"?", "é".encode(), b"\xff"),
)
_IGNORE = b"*.log\nbuild/\n!keep.log\n/only.txt\n**/b/*.txt\na/**\n\\#x\n[a-c]*\n"
_NAMES = (
    "a.txt",
    "b.log",
    "keep.log",
    "only.txt",
    "#x",
    "ü.md",
    "\\",
    "[a",
    "\x1b[2J.txt",
    "\u202e",
)
_FOLDERS = ("", "a/", "b/", "build/", "a/b/", ".git/", "a" * 100 + "/", ".hidden/")


def cases(rng: random.Random) -> Iterator[Case]:
    """Each folder is read, by its name or by a glob."""
    for number in count():
        files = {
            f"f/{rng.choice(_FOLDERS)}{rng.choice(_NAMES)}": b"some words\n"
            for _ in range(rng.randrange(1, 12))
        }
        for folder in rng.sample(("", "a/", ".git/info/"), rng.randrange(1, 4)):
            name = "exclude" if folder.startswith(".git") else ".gitignore"
            files[f"f/{folder}{name}"] = mutated(rng, _IGNORE, _TOKENS)
        odd = rng.choices(_ODD, k=rng.randrange(3))
        asked = ("vram-estimate", "--model", MODEL, "--file", rng.choice(("f", "f", "f/**", ".")))
        yield Case(f"folder {number}", asked, files, prepare=partial(_make, odd=odd))


_ODD = ("pipe", "loop", "zero", "up", "closed", "pipe rules", "zero rules", "gone")


def _make(folder: Path, odd: list[str]) -> None:
    f = folder / "f"
    for kind in odd:
        place = f / (".gitignore" if kind.endswith("rules") else f"{kind}.txt")
        if place.exists() or place.is_symlink():
            place.unlink()
        if kind.startswith("pipe"):
            os.mkfifo(place)
        elif kind == "closed":
            place.write_bytes(b"words")
            place.chmod(0)
        else:
            targets = {"loop": "loop.txt", "up": "..", "gone": "nowhere"}
            place.symlink_to(targets.get(kind, "/dev/zero"))
