"""What was said, taken elsewhere: as Markdown or JSON, to a file, or to the clipboard.

The clipboard is reached by the system's own tool, or by the terminal (OSC 52).
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from nazx_cli.documents.control import strip_control
from nazx_cli.errors import NazxError, UsageError
from nazx_cli.foreign import expanded
from nazx_cli.reading.passages import source_line, source_record
from nazx_cli.session.calibration import doubt, rounded

if TYPE_CHECKING:
    from nazx_cli.session.saving.conversation import Conversation

_LONGEST = 74_994  # bytes of text: terminals take 100,000 characters of base64, codes included


def export(text: str, name: str, *, overwrite: bool, how: str) -> Path:
    """Write ``text`` to the file ``name``; the path.

    ``UsageError`` where the file is there and may not be overwritten; ``how`` says how it may.
    """
    path = expanded(name)
    try:
        with path.open("w" if overwrite else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{name} is there already", how) from None
    except OSError as error:
        raise NazxError(
            f"{name} cannot be written: {error.strerror or error}", "name another file"
        ) from None
    return path


def as_markdown(said: Conversation) -> str:
    """The transcript, without control sequences."""
    return strip_control("\n\n".join(_blocks(said)) + "\n")


def as_data(said: Conversation) -> dict[str, Any]:
    """The transcript as one JSON object."""
    return {
        "model": said.model,
        "system": said.system,
        "documents": [{"name": name, "tokens": tokens} for name, tokens in said.documents],
        "turns": [
            {
                "question": turn.question,
                "answer": turn.answer.strip(),
                "interrupted": turn.interrupted,
                "confidence": rounded(turn.confidence),
                "sources": [source_record(passage) for passage in turn.sources],
            }
            for turn in said.turns
        ],
    }


def _blocks(said: Conversation) -> Iterator[str]:
    """The transcript in blocks, between which lines are left blank."""
    yield "# A conversation in NazX"
    yield f"{datetime.now():%Y-%m-%d %H:%M}, model {said.model}"
    if said.system:
        yield f"System message: {said.system}"
    if said.documents:
        yield "Documents:"
        yield _numbered(f"{name} ({tokens:,} tokens)" for name, tokens in said.documents)
    for number, turn in enumerate(said.turns, 1):
        yield f"## {number}"
        # quoted, so that headings in a pasted question are not the transcript's own
        yield "\n".join(f"> {line}".rstrip() for line in turn.question.splitlines())
        yield turn.answer.strip()
        if turn.interrupted:
            yield "*(stopped before its end)*"
        if told := doubt(turn.confidence):
            yield f"*({told})*"
        if turn.sources:
            yield "Sources:"
            yield _numbered(map(source_line, turn.sources))


def _numbered(lines: Iterable[str]) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


def copy(text: str, terminal: TextIO) -> str | None:
    """Copy ``text``; how it was done (``with wl-copy``), or None where there is no way."""
    tool = _tool()
    if tool is not None and _run(tool, text):
        return f"with {tool[0]}"
    data = text.encode()
    if not terminal.isatty() or len(data) > _LONGEST or os.environ.get("TERM") == "dumb":
        return None
    terminal.write(osc52(data))
    terminal.flush()
    return "through the terminal, where it allows that"


def osc52(data: bytes) -> str:
    """The sequence that asks a terminal to copy ``data``, passed through tmux where it runs."""
    sequence = f"\x1b]52;c;{base64.b64encode(data).decode('ascii')}\x07"
    if os.environ.get("TMUX"):
        escaped = sequence.replace("\x1b", "\x1b\x1b")
        # tmux takes the plain form with set-clipboard on, the wrapped one with allow-passthrough
        return f"{sequence}\x1bPtmux;{escaped}\x1b\\"
    return sequence


def _tool() -> list[str] | None:
    """The command that copies its input on this system, where there is one that can work."""
    if sys.platform == "darwin":
        candidates = [["pbcopy"]]
    elif sys.platform == "win32":
        candidates = [["clip.exe"]]
    else:
        candidates = []
        if os.environ.get("WAYLAND_DISPLAY"):
            candidates.append(["wl-copy"])
        if os.environ.get("DISPLAY"):
            candidates += [["xclip", "-selection", "clipboard"], ["xsel", "--clipboard", "--input"]]
        if os.environ.get("WSL_DISTRO_NAME"):
            candidates.append(["clip.exe"])
    return next((tool for tool in candidates if shutil.which(tool[0])), None)


def _run(tool: list[str], text: str) -> bool:
    encoding = "utf-16-le" if tool[0] == "clip.exe" else "utf-8"
    try:
        # xclip stays to serve the clipboard and would keep a pipe for its output open
        nowhere, data = subprocess.DEVNULL, text.encode(encoding)
        subprocess.run(tool, input=data, stdout=nowhere, stderr=nowhere, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True
