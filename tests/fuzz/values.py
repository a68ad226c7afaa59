"""Values that a person, a script or a file may give for an option, most of them wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path

from fuzz.law import MODEL

FILES: Mapping[str, bytes] = {
    "a.txt": b"The fox ran home. Anna saw the fox.",
    "folder/b.md": b"# A\n\nBob is at sea.",
    "data.jsonl": b'{"title": "a", "sections": [{"id": "1", "text": "The fox ran."}], "questions": '
    b'[{"question": "Who ran?", "answers": ["the fox"], "sections": ["1"]}]}\n',
    "empty": b"",
}

_HOSTILE = ("\x1b[2J", "\x9b2J", "a\u202eb", "\udcff", "x" * 100_000, "\x7f", "\r\n", "a\tb")
TEXTS = (
    *_HOSTILE,
    *("", " ", "-", "--", "---", "-1", "@", "@a.txt", "%s", "{0}", "$HOME", "~", "'", '"', "\\"),
    *("..", "a/b", "a/b/c", "[", "*", "?", "none", "auto", "NUL", "ﬀ", "e\u0301", "=", "a=b", "#"),
)
_DIGITS = (
    *("0", "1", "2", "-1", "-0", "+1", "1.5", ".5", "1e5", "1e309", "1e-400", "-1e309", "0x10"),
    *("nan", "-nan", "NaN", "inf", "-inf", "Infinity", "2147483648", "9223372036854775808", "1_0"),
    *(
        "-9223372036854775809",
        "1,000",
        "1,0",
        "100k",
        "1M",
        "9" * 5000,
        "0." + "9" * 5000,
        "²",
        "½",
    ),
    *("１２", "٣", "1 2", "1\u202e", "1\x1b[2J", "True", "null", "[1]", "1e", "e1", "1-3", "3-1"),
)
_SIZES = (
    *(
        "8GB",
        "8",
        "-8GB",
        "0GB",
        "1e309GB",
        "８GB",
        "9" * 400 + "TB",
        "1KiB",
        "nanGB",
        "1 TB",
        "GB",
    ),
    *("1.5.5GB", "1e400", "100%", "8gb", "8 gigabytes", "512MiB", "1000", "999", "1e-9GB"),
)
_PATHS = (  # the pipe is not named: whoever names one waits for what is written to it
    *("a.txt", "folder", "missing", "missing/x", "empty", "loop", "dangling", "closed", ".", "**"),
    *("/dev/null", "/dev/full", "/dev/zero", "a.txt/x", "folder/", "*.txt", "[", "-", "./-"),
    *("data.jsonl", "x" * 300, MODEL, f"{MODEL}/config.json", "org/repo", "a\udcff", "\x1b[2J.txt"),
)
ENDLESS = frozenset({"--watch"})
"""Options that have a command go on until it is stopped."""
_WORK = frozenset(
    (
        *("max-tokens", "max_tokens", "repeat", "epochs", "steps", "minutes", "questions"),
        *("limit", "calibrate", "check-every", "extract-words", "patience", "batch-tokens"),
    )
)
"""Numbers that say how much is to be done: a great one is no fault, and takes long."""


def prepare(folder: Path) -> None:
    """Put into a case's folder what is no file: links, a pipe, a folder that is closed."""
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    (folder / "closed").mkdir(mode=0)


def number(rng: random.Random, name: str) -> str:
    """A number for the option called ``name``, without dashes before it."""
    if name in _WORK:
        return rng.choice([each for each in _DIGITS if not _is_much(each)])
    return rng.choice((*_DIGITS, *_SIZES)) if rng.random() < 0.8 else str(rng.randint(0, 2000))


def path(rng: random.Random) -> str:
    """A path, of which none leads to what a case may not touch."""
    return rng.choice(_PATHS)


def text(rng: random.Random) -> str:
    """A text or a name."""
    return rng.choice((*TEXTS, "why?", "Who saw the fox?"))


def anything(rng: random.Random, name: str) -> str:
    """A value of any kind for ``name``."""
    kind = rng.randrange(3)
    return number(rng, name) if kind == 0 else path(rng) if kind == 1 else text(rng)


def _is_much(written: str) -> bool:
    digits = "".join(each for each in written if each.isdecimal()).strip("0")
    return len(digits) > 1 or any(each in written.lower() for each in "ekm")
