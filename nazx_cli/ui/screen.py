"""Where answers and notes go: answers to stdout, everything else to stderr.

Colours and moving things appear only on a terminal, and Rich is imported only there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from nazx_cli.documents.control import strip_control
from nazx_cli.errors import NazxError

if TYPE_CHECKING:
    from nazx_cli.engine.generator import Stats
    from nazx_cli.reading.passages import Passage

_LEAST_WORDS = 12  # cells for a source's first words; where there are fewer, the line wraps


class ProgressBar(Protocol):
    """A context manager that is drawn from ``start`` or the first ``update`` until ``stop``."""

    def __enter__(self) -> ProgressBar: ...

    def __exit__(self, *_: object) -> None: ...

    def start(self) -> None:
        """Draw it, before any figure is known."""

    def update(self, *values: str | int) -> None:
        """Show (done, total), or (stage, done, total)."""

    def stop(self) -> None:
        """Remove it; once is enough, more do no harm."""


@dataclass(frozen=True)
class Screen:
    """The two streams and what the person wants on them.

    ``sources`` None: in a terminal; ``plain``: answers as they are, Markdown marks and all.
    """

    out: TextIO
    err: TextIO
    quiet: bool = False
    verbose: bool = False
    sources: bool | None = None
    plain: bool = False

    @property
    def is_lively(self) -> bool:
        """True where progress bars and spinners may be drawn."""
        return not self.quiet and self.err.isatty()

    def note(self, text: str) -> None:
        """One line for the person, on stderr."""
        if not self.quiet:
            print(strip_control(text), file=self.err, flush=True)

    def error(self, error: NazxError) -> None:
        """A failure and its next step."""
        print(error_line(error), file=self.err, flush=True)

    def line(self, text: str) -> None:
        """What was asked for, on stdout."""
        print(strip_control(text), file=self.out, flush=True)

    def data(self, value: Any) -> None:
        """A JSON object on a line of stdout."""
        unicode = "utf" in (getattr(self.out, "encoding", None) or "").lower()
        self.out.write(json.dumps(value, ensure_ascii=not unicode) + "\n")
        self.out.flush()

    def show_sources(self, passages: Sequence[Passage], *, always: bool = False) -> None:
        """Name the passages an answer was given: file, lines, first words."""
        wanted = self.sources if self.sources is not None else self.err.isatty()
        if not passages or not (always or wanted) or (self.quiet and not always):
            return
        from nazx_cli.reading.passages import source_line

        print("\nsources:", file=self.err)
        for number, passage in enumerate(passages, 1):
            line = f"  [{number}] {strip_control(source_line(passage))}"
            print(_in_one_row(line) if self.err.isatty() else line, file=self.err)
        self.err.flush()

    def show_stats(self, stats: Stats, mode: str) -> None:
        """Figures of an answer, where ``--verbose`` asks for them."""
        if not self.verbose or self.quiet:
            return
        read = "" if mode == "none" else f", read mode {mode}"
        self.note(
            f"\n{stats.context_tokens:,} tokens in context ({stats.context_bytes:,} bytes){read}; "
            f"first token after {stats.first_token_seconds:.2f} s; "
            f"{stats.generated:,} tokens at {stats.tokens_per_second:.1f} tokens/s"
        )

    def bar(self, label: str) -> ProgressBar:
        """A progress bar on stderr, or nothing where none may be drawn."""
        if not self.is_lively:
            return Silence()
        from nazx_cli.ui.progress import Bar

        return Bar(self.err, label)


def _in_one_row(line: str) -> str:
    """A source's line with as many of its first words as a row of the terminal holds."""
    from rich.cells import cell_len, set_cell_size

    place, mark, opening = line.partition("  “")
    room = shutil.get_terminal_size().columns - cell_len(f"{place}{mark}…”")
    if cell_len(opening) <= room + 2 or room < _LEAST_WORDS:
        return line
    words = set_cell_size(opening, room)
    return f"{place}{mark}{words.rpartition(' ')[0] or words}…”"


class Silence:
    """The progress bar of a screen that shows none."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self) -> None:
        """Nothing."""

    def update(self, *values: str | int) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


def error_line(error: NazxError) -> str:
    """What is wrong and what to do next, in one line."""
    message = " ".join(strip_control(error.message).split())
    hint = " ".join(strip_control(error.hint).split())
    return f"error: {message}" + (f"; next: {hint}" if hint else "")
