"""Keeping text from documents and models from steering the terminal that shows it.

Removed: escape sequences (CSI, OSC, DCS and their like), control characters other than newline
and tab, the eight-bit controls, lone surrogates (which no terminal can be sent), and the
characters that reorder text (bidirectional embeddings, overrides and isolates). Kept: all else,
emoji and their joiners included.
"""

from __future__ import annotations

import re

_UNSAFE = r"\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_LONGEST = 4096  # characters of an OSC or DCS string; past that its text is shown as text
_STRING = rf"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]{{0,{_LONGEST}}}"
_CSI = r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}"

_REMOVED = re.compile(
    rf"{_STRING}(?:\x07|\x1b\\|\x9c)"
    rf"|{_CSI}[@-~]"
    r"|\x1b[ -/]{1,8}[0-~]"  # two-byte escapes with intermediates, such as a character set
    r"|\x1b[0-~]?"
    rf"|[\x00-\x08\x0b-\x1f{_UNSAFE}]"
)
_ESCAPED = re.compile(f"[{_UNSAFE}]")  # JSON escapes the others itself
_UNFINISHED = re.compile(rf"(?:{_STRING}\x1b?|{_CSI}|\x1b[ -/]{{0,8}})\Z")


def strip_control(text: str) -> str:
    """``text`` without anything that would act on a terminal."""
    return _REMOVED.sub("", text)


def escape_control(text: str) -> str:
    """JSON ``text`` that means the same; what would act on a terminal is written ``\\u202e``."""
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class ControlFilter:
    """``strip_control`` for text that arrives in pieces, wherever the pieces are cut.

    ``push`` returns what is safe to show now; a sequence that may not have ended yet is held
    back until it has. ``flush`` returns what remains at the end.
    """

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        """Text to show after ``text`` has arrived."""
        text = self._held + text
        unfinished = _UNFINISHED.search(text)
        end = unfinished.start() if unfinished else len(text)
        self._held = text[end:]
        return strip_control(text[:end])

    def flush(self) -> str:
        """What was held back, stripped; the filter is then as new."""
        text, self._held = self._held, ""
        return strip_control(text)
