"""The gauge: memory in use beside its limit, what the context costs, tokens, speed.

One line, in a chat's toolbar and below an answer that is being written.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from nazx_cli.documents.control import strip_control
from nazx_cli.memory.probe import Reading, read_memory
from nazx_cli.ui.phrases import counted, shortened, size_text
from nazx_cli.ui.terminal.screen import knows_unicode

if TYPE_CHECKING:
    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from rich.text import Text

    from nazx_cli.engine.generator import Stats
    from nazx_cli.session.events import Usage

YELLOW, RED = 0.75, 0.90
"""Shares of the limit from which the bar is yellow, and red."""
_EVERY = 0.25  # seconds between two looks at the memory
_BAR = (4, 24)  # cells of the bar, at least and at most
_CELLS = 4  # it grows by so many: else it would jump with every digit that a number gains
_NAMED = 3  # documents that are named with their tokens
_LONGEST_NAME = 20  # characters of a document's name
_COLORS = ("green", "yellow", "red")
_MARKS = ("", " !", " !!")  # the same without colours
_BETWEEN = " · "
_OPTIONAL = ("device", "context", "documents", "conversation", "turns", "speed")  # in this order

# What is shortened, or left out at its last form, one step at a time until a line fits.
# fmt: off
_STEPS = (
    "documents", "device", "conversation", "documents", "context", "turns", "speed", "bytes",
    "name", "device", "speed", "context", "conversation", "context", "documents", "name", "turns",
    "bytes", "conversation", "speed",
)
# fmt: on


class Piece(NamedTuple):
    """A stretch of the gauge; ``color`` is empty where it has none."""

    text: str
    color: str = ""


class Gauge:
    """What the memory of ``device`` and the tokens of a chat are now.

    ``limit`` is in bytes; None: all the device has. ``usage`` is called only on the thread that
    made the gauge, which is the one that changes the chat; ``speed`` (tokens/s) is that of the
    answer being made, then of the last one.
    """

    def __init__(
        self, usage: Callable[[], Usage | None], device: str, limit: int | None = None
    ) -> None:
        self.device = device
        self.limit = limit
        self.speed: float | None = None
        self._usage = usage
        self._owner = threading.get_ident()
        self._counted: Usage | None = None
        self._counted_at = self._read_at = float("-inf")
        self._reading = Reading(device, 0, 0, 0)
        self._is_unicode = knows_unicode(sys.stderr)

    def follow(self, stats: Stats) -> None:
        """Take in the figures of an answer that is being made."""
        if stats.generated > 1:
            self.speed = stats.tokens_per_second
        self.count()

    def count(self) -> None:
        """Count the tokens anew, where the last count is old."""
        now = time.monotonic()
        if threading.get_ident() == self._owner and now - self._counted_at >= _EVERY:
            self._counted = self._usage()
            self._counted_at = now

    def reading(self) -> Reading:
        """The memory now, or at most a quarter of a second ago."""
        now = time.monotonic()
        if now - self._read_at >= _EVERY:
            self._reading = read_memory(self.device)
            self._read_at = now
        return self._reading

    def pieces(self, width: int) -> list[Piece]:
        """The line, at most ``width`` cells wide."""
        self.count()
        return draw(
            self.reading(),
            width,
            limit=self.limit,
            usage=self._counted,
            speed=self.speed,
            is_unicode=self._is_unicode,
        )

    def fragments(self, width: int) -> StyleAndTextTuples:
        """The line for prompt-toolkit, which leaves out colours where NO_COLOR asks for it."""
        return [
            (f"noreverse bg:default fg:{'ansi' + color if color else 'default'}", text)
            for text, color in self.pieces(width)
        ]

    def rich_text(self, width: int) -> Text:
        """The line for Rich, which leaves out colours where NO_COLOR asks for it."""
        return as_text(self.pieces(width))


def as_text(pieces: Iterable[Piece]) -> Text:
    """``pieces`` for Rich."""
    from rich.text import Text

    return Text.assemble(*((text, color or "dim") for text, color in pieces), end="")


def draw(
    reading: Reading,
    width: int,
    *,
    limit: int | None = None,
    usage: Usage | None = None,
    speed: float | None = None,
    is_unicode: bool = True,
) -> list[Piece]:
    """The gauge of these figures, at most ``width`` cells wide.

    The wider it may be, the more it says; the bar takes what room is left, in steps, so that what
    follows it stays where it is while numbers grow.
    """
    from rich.cells import cell_len

    limit = limit or reading.total
    share = reading.used / limit if limit else 0.0
    forms = _forms(reading, limit, usage, speed)
    least = _BAR[0] if limit else 0
    tail = f" {share:>3.0%}{_MARKS[_level(share)]} " if limit else " "
    for step in (None, *_STEPS):
        if step is not None and len(forms[step]) > 1:
            forms[step].pop(0)
        head, *rest = (forms[name][0] for name in forms)
        head += " " if head else ""
        after = _BETWEEN.join(text for text in rest if text)
        room = width - cell_len(head + tail + after)
        if room >= least:
            break
    cells = min(_BAR[1], room if room < _CELLS else room - room % _CELLS)
    bar = _bar(share, cells, is_unicode) if limit and room > 0 else ""
    if not is_unicode:
        after = after.replace(_BETWEEN, " | ")
    pieces = [Piece(head), Piece(bar + tail, _COLORS[_level(share)] if limit else ""), Piece(after)]
    return _cut(pieces, width)


def _level(share: float) -> int:
    """0, 1 from 75 %, 2 from 90 %."""
    return (share >= YELLOW) + (share >= RED)


def _bar(share: float, cells: int, is_unicode: bool) -> str:
    full = min(cells, round(share * cells))
    return "█" * full + "░" * (cells - full) if is_unicode else "#" * full + "-" * (cells - full)


def _cut(pieces: list[Piece], width: int) -> list[Piece]:
    """``pieces`` up to ``width`` cells."""
    from rich.cells import cell_len, set_cell_size

    kept: list[Piece] = []
    for text, color in pieces:
        shown = text if cell_len(text) <= width else set_cell_size(text, width)
        width -= cell_len(shown)
        if shown:
            kept.append(Piece(shown, color))
    return kept


def _forms(
    reading: Reading, limit: int, usage: Usage | None, speed: float | None
) -> dict[str, list[str]]:
    """What the gauge tells, each in its forms from the longest to the shortest."""
    name = reading.kind
    used, most = size_text(reading.used), size_text(limit)
    forms = {
        "name": [name, name.split()[0], ""],
        "bytes": [f"{used} of {most}", _ratio(reading.used, limit), used] if limit else [used],
        **{name: [""] for name in _OPTIONAL},
    }
    if reading.reserved:
        reserved, in_use = size_text(reading.reserved), size_text(reading.in_use)
        forms["device"] = [
            f"reserved {reserved}, whole device {in_use}",
            f"reserved {reserved}, device {in_use}",
            "",
        ]
    if usage is not None:
        forms |= _usage_forms(usage)
    if speed:
        forms["speed"] = [f"{speed:.1f} tokens/s", f"{speed:.0f} tok/s", f"{speed:.0f}/s", ""]
    return forms


def _usage_forms(usage: Usage) -> dict[str, list[str]]:
    context = size_text(usage.context_bytes)
    number, _, unit = context.partition(" ")
    brief = f"{float(number):.0f} {unit}" if float(number) >= 9.95 else context
    forms = {"context": [f"context {context}", f"ctx {brief}", ""]}
    if usage.ranks > 1:
        forms["context"].insert(0, f"context {context} on the first of {usage.ranks} processes")
    if usage.documents:
        total = usage.document_tokens
        forms["documents"] = [
            f"documents {total:,} tokens{_shares(usage)}",
            f"documents {total:,} tokens",
            f"docs {_short(total)}",
            "",
        ]
    said = usage.conversation_tokens
    forms["conversation"] = [f"conversation {said:,} tokens", f"chat {_short(said)}", ""]
    if usage.window is not None:
        used, most = usage.window_used, usage.window
        name = "chat" if used == said else "window"  # documents may be in the window too
        forms["conversation"] = [
            f"conversation {said:,} tokens, window {used:,} of {most:,}",
            f"{name} {_short(used)}/{_short(most)}",
            f"{name} {used / most:.0%}",
            "",
        ]
    if count := usage.left_out:
        turns = counted(count, "turn")
        forms["turns"] = [f"{turns} in documents", f"{turns} in docs", ""]
    return forms


def _shares(usage: Usage) -> str:
    """Tokens by document, of the first few where there are several."""
    if len(usage.documents) == 1:
        return f" ({_name(usage.documents[0][0])})"
    parts = [f"{_name(name)} {tokens:,}" for name, tokens in usage.documents[:_NAMED]]
    if (more := len(usage.documents) - _NAMED) > 0:
        parts.append(f"{more:,} more")
    return f" ({', '.join(parts)})"


def _name(name: str) -> str:
    return shortened(strip_control(" ".join(name.split())), _LONGEST_NAME)


def _ratio(used: int, limit: int) -> str:
    """``0.90/16.0 GB``: both in the unit of the second."""
    number, _, unit = size_text(limit).partition(" ")
    value = used * float(number) / limit
    digits = 0 if value >= 99.95 or unit == "bytes" else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}/{number} {unit}"


def _short(count: int) -> str:
    """``120k``: at most four characters and the unit."""
    if count < 1000:
        return str(count)
    value, unit = (count / 1e3, "k") if count < 999_500 else (count / 1e6, "M")
    return f"{value:.{1 if value < 9.95 else 0}f}{unit}"
