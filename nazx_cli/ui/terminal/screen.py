"""Where answers and notes go: answers to stdout, everything else to stderr.

Colours and moving things appear only on a terminal, and Rich is imported only there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, TextIO

from nazx_cli.documents.control import escape_control, strip_control
from nazx_cli.errors import NazxError
from nazx_cli.ui.phrases import shortened
from nazx_cli.ui.terminal.interrupts import importing
from nazx_cli.ui.terminal.lines import Pace, ProgressLines
from nazx_cli.ui.terminal.streams import columns_of, gated, raw, terminal_size
from nazx_cli.ui.terminal.tables import Table, cell_width, wrapped

if TYPE_CHECKING:
    from nazx_cli.documents.document import Skipped
    from nazx_cli.engine.generator import Stats
    from nazx_cli.reading.passages import Passage
    from nazx_cli.session.events import Answer
    from nazx_cli.ui.terminal.live import Live

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

_CELLS = 30
_BAR, _PLAIN_BAR = ("━", "─"), ("#", "-")  # what is done of it, and what is not
_STARTING = "starting: loading PyTorch"

_NAMED = 5  # left-out files that are named
_SOURCES = 5  # passages that are named below an answer
_LEAST_WORDS = 12  # cells for a source's first words; where there are fewer, the place stands alone


@dataclass(frozen=True)
class Screen:
    """The two streams, behind gates, and what the person wants on them.

    ``sources`` None: in a terminal; ``plain``: answers as they are, Markdown marks and all.
    """

    out: TextIO
    err: TextIO
    quiet: bool = False
    verbose: bool = False
    sources: bool | None = None
    plain: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", gated(self.out))
        object.__setattr__(self, "err", gated(self.err, lossy=True))

    @property
    def is_lively(self) -> bool:
        """True where progress bars and spinners may be drawn."""
        return not self.quiet and self.err.isatty()

    @property
    def width(self) -> int | None:
        """How wide what is said may be; None where there is no terminal."""
        return columns_of(self.err)

    def note(self, text: str) -> None:
        """A line for the person, on stderr."""
        if not self.quiet:
            self.say(text)

    def say(self, shown: str | Table) -> None:
        """What a command was asked for, on stderr; unlike a note, ``quiet`` does not silence it."""
        show(shown, self.err)

    def error(self, error: NazxError) -> None:
        """A failure and its next step."""
        self.say(error_line(error))

    def line(self, shown: str | Table) -> None:
        """What was asked for, on stdout."""
        show(shown, self.out)

    def data(self, value: Any) -> None:
        """A JSON object on a line of stdout."""
        text = json.dumps(value, ensure_ascii=not knows_unicode(self.out))
        self.out.write(escape_control(text) + "\n")
        self.out.flush()

    def show_sources(
        self, passages: Sequence[Passage], *, always: bool = False, every: str = ""
    ) -> None:
        """Name the passages that the model was given: file, lines, first words. Those within
        another are left out; with ``every``, which shows them all, so are all but the first."""
        if not passages or not (always or self._names_sources):
            return
        from nazx_cli.reading.passages import distinct, short_names, source_line

        found, names = distinct(passages), short_names(passages)
        shown = found[:_SOURCES] if every else found
        self.say("\ngiven to the model as sources:")
        for number, passage in shown:
            named = source_line(passage, name=names[passage.document])
            self.say(_in_one_row(f"  [{number}] {strip_control(named)}", self.width))
        if more := len(found) - len(shown):
            self.say(f"  and {more} more; {every} shows all of them")

    def show_places(self, sentences: Sequence[Passage]) -> None:
        """Where the sentences of an extract stand, a line for each document."""
        if not self._names_sources:
            return
        from nazx_cli.reading.passages import places_line

        self.say("\nan extract, in the document's own sentences:")
        for _, group in groupby(sentences, key=lambda sentence: sentence.document):
            self.say(f"  {places_line(list(group))}")

    def show_citation(self, answer: Answer) -> None:
        """What an answer stands on: places and the words quoted, and how many other passages the
        model was given; of an unsure one that stands on nothing that is named, that it is so."""
        if not self._names_sources or not (answer.quotations or answer.doubt):
            return
        from nazx_cli.reading.passages import distinct, short_names, source_line

        names = short_names(answer.sources)
        manner = f"{answer.doubt}; " if answer.doubt else "likely " if answer.likely else ""
        quotes = (source_line(p, text, names[p.document]) for p, text in answer.quotations)
        lines = [f"{manner}source: {quote}" for quote in quotes] or [answer.doubt]
        cited = {passage for passage, _ in answer.quotations}
        if (second := answer.runner_up) is not None:
            line = f"or perhaps: {second.text}"
            if second.quotation is not None:
                passage, text = second.quotation
                cited.add(passage)
                line += f"  {source_line(passage, text, names[passage.document])}"
            lines.append(line)
        self.say("\n" + "\n".join(map(strip_control, lines)))
        if others := sum(passage not in cited for _, passage in distinct(answer.sources)):
            more = f"{others} more" if cited else str(others)
            self.say(f"(the model was given {more} {'passage' if others == 1 else 'passages'})")

    @property
    def _names_sources(self) -> bool:
        wanted = self.sources if self.sources is not None else self.err.isatty()
        return wanted and not self.quiet

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

    def tell_skipped(self, skipped: Sequence[Skipped], named: int = _NAMED) -> None:
        """Name what a folder or glob left out: so many, the others are counted."""
        for each in skipped[:named]:
            self.note(f"note: {each.name} {each.reason}; left out")
        if (more := len(skipped) - named) > 0:
            self.note(f"note: {more} more left out")

    def bar(self, label: str) -> Bar:
        """A progress bar on stderr; nothing is drawn where nothing may be."""
        return Bar(raw(self.err) if self.is_lively else None, label)

    def long_bar(self, label: str) -> Bar | ProgressLines:
        """A bar for work that may take minutes: where none can be drawn, a line now and then."""
        return self.bar(label) if self.is_lively else ProgressLines(self.note, label)

    def start_computing(self) -> None:
        """Import what computes, which takes seconds, and say so before it does: nothing can be
        said meanwhile, since loading a compiled library holds up every thread."""
        if "torch" in sys.modules:
            return
        with self.long_work(_STARTING), importing():
            import nazx_cli.engine.language_model  # noqa: F401

    @contextmanager
    def long_work(self, label: str) -> Iterator[Bar]:
        """A bar, drawn at once; where nothing may be drawn, its label in a plain line."""
        if not self.is_lively:
            self.note(label)
        with self.bar(label) as bar:
            bar.start()
            yield bar


def knows_unicode(stream: TextIO) -> bool:
    """Whether every character can be written to ``stream``."""
    return "utf" in (getattr(stream, "encoding", None) or "").lower()


def show(shown: str | Table, stream: TextIO) -> None:
    """Print a table or text; on a terminal lines are broken between words."""
    width = columns_of(stream)
    if isinstance(shown, Table):
        lines = shown.lines(width)
    else:
        lines = shown.split("\n")
        if width is not None:
            lines = [row for line in lines for row in wrapped(line, width)]
    print("\n".join(lines), file=stream, flush=True)


def _in_one_row(line: str, width: int | None) -> str:
    """A source's line with as many of its first words as a row of the terminal holds."""
    if width is None or cell_width(line) <= width:
        return line
    from rich.cells import set_cell_size

    place, mark, opening = line.partition("  “")
    room = width - cell_width(f"{place}{mark}…”")
    if room < _LEAST_WORDS:
        number, _, name = place.strip().partition(" ")
        return f"  {number} {shortened(name, max(2, width - len(number) - 3))}"
    words = set_cell_size(opening, room).rpartition(" ")[0]
    if not words and not opening[0].isascii():  # a script without spaces between words
        words = set_cell_size(opening, room)
    return f"{place}{mark}{words}…”"


def error_line(error: NazxError) -> str:
    """What is wrong and what to do next, in one line."""
    message, hint = (" ".join(text.split()) for text in (error.message, error.hint))
    return f"error: {message}" + (f"; next: {hint}" if hint else "")


class Bar:
    """A progress bar that leaves nothing behind: a spinner until the first ``update``.

    A context manager, drawn on ``stream`` (None: nowhere) from ``start`` or the first ``update``
    until ``stop``.
    """

    def __init__(self, stream: TextIO | None, label: str) -> None:
        self._stream = stream
        self._pace = Pace(strip_control(label))
        self._live: Live | None = None
        self._drawn = ExitStack()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Draw it, before any figure is known."""
        if self._stream is None or self._live is not None:
            return
        self._drawn.enter_context(no_echo())  # what is typed would leave pieces of it behind
        self._drawn.callback(self._put, "\r\x1b[K")
        room = terminal_size(self._stream)[0] - 1  # a row more would be left behind
        self._put(f"  {self._pace.name}"[:room] + "\r")
        from nazx_cli.ui.terminal.live import Live  # which takes a while

        self._live = Live(self._stream, None, None)
        self._drawn.callback(self._live.stop)
        self._live.show_status(self._pace.name)
        self._live.start()

    def update(self, *values: str | int) -> None:
        """Show (done, total), or (stage, done, total)."""
        self.start()
        if self._live is None or self._stream is None:
            return
        self._pace.update(*values)
        full, empty = _BAR if knows_unicode(self._stream) else _PLAIN_BAR
        share, told = self._pace.share, strip_control(self._pace.name)
        if self._pace.is_known:
            filled = int(share * _CELLS)
            told += f"  {full * filled}{empty * (_CELLS - filled)} {100 * share:.0f} %"
        if 0 < share < 1:
            told += f", {self._pace.left} left"
        self._live.show_status(told)

    def _put(self, text: str) -> None:
        assert self._stream is not None, "nothing is drawn nowhere"
        self._stream.write(text)
        self._stream.flush()

    def stop(self) -> None:
        """Remove it; once is enough, more do no harm."""
        self._live = None
        self._drawn.close()


@contextmanager
def no_echo() -> Iterator[None]:
    """What is typed meanwhile is kept for the next prompt, not shown; Ctrl-C works as ever."""
    before = _silence()
    try:
        yield
    finally:
        if before is not None:
            _set_terminal(before)


def _silence() -> list[Any] | None:
    """The terminal's attributes before it was made silent; None where it was not."""
    if termios is None or sys.stdin is None or not sys.stdin.isatty():
        return None
    try:
        # A job in the background would be stopped for changing its terminal.
        if os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
            return None
        before = termios.tcgetattr(sys.stdin)
    except (termios.error, OSError, ValueError):
        return None
    silent = list(before)
    silent[3] &= ~termios.ECHO
    return before if _set_terminal(silent) else None


def _set_terminal(attributes: list[Any]) -> bool:
    try:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, attributes)
    except (termios.error, OSError, ValueError):
        return False
    return True
