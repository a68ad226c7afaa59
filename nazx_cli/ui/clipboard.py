"""Copying text to the clipboard: by the system's own tool, and by the terminal (OSC 52)."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from typing import TextIO

_LONGEST = 74_994  # bytes of text: terminals take 100,000 characters of base64, codes included


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
        subprocess.run(
            tool,
            input=text.encode(encoding),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True
