"""One question and its answer as a person sees it: streamed, interruptible, with sources."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from nazx_cli.documents.control import ControlFilter
from nazx_cli.names import EXTRACT
from nazx_cli.reading.passages import source_line, source_record
from nazx_cli.session.calibration import rounded
from nazx_cli.session.events import (
    Answer,
    Delta,
    Event,
    Finding,
    Notice,
    Progress,
    Reading,
    Running,
    Thought,
)
from nazx_cli.ui.phrases import counted, duration
from nazx_cli.ui.terminal.interrupts import InterruptGuard
from nazx_cli.ui.terminal.screen import Screen

if TYPE_CHECKING:
    from nazx_cli.reading.passages import Passage
    from nazx_cli.session.citation import Quotation
    from nazx_cli.ui.terminal.gauge_line import Gauge
    from nazx_cli.ui.terminal.live import Live

_WAITING = "reading"


@dataclass
class Outcome:
    """What came of a question; ``answer`` is None where it was interrupted. ``thought`` is the last
    piece of the thinking, if there was any."""

    text: str = ""
    mode: str = "none"
    sources: tuple[Passage, ...] = ()
    answer: Answer | None = None
    thinking: str = ""
    thought: Thought | None = None
    findings: list[Finding] = field(default_factory=list)

    def keep_findings(self, display: Display) -> None:
        """Where it was interrupted before the answer began, the partial answers are the answer."""
        if self.findings and not self.text:
            self.text = "\n\n".join(finding.text for finding in self.findings)
            self.sources = tuple(p for finding in self.findings for p in finding.passages)
            display.push(Delta(self.text))

    @property
    def interrupted(self) -> bool:
        """True where Ctrl-C ended the answer."""
        return self.answer is None

    def as_data(self, model: str) -> dict[str, Any]:
        """The outcome as one JSON object."""
        stats = self.answer.stats if self.answer else None
        cited: dict[str, Any] = {}
        if self.answer is not None and self.answer.cites:
            quotes = [_quoted(each) for each in self.answer.quotations]
            cited = quotes[0] if quotes else _quoted(None)
            cited |= {"confidence": rounded(self.answer.confidence), "likely": self.answer.likely}
            if (second := self.answer.runner_up) is not None:
                other = {"answer": second.text, "confidence": rounded(second.confidence)}
                cited["runner_up"] = other | _quoted(second.quotation)
            if len(quotes) > 1:
                cited["further_quotes"] = quotes[1:]
        return {
            "answer": self.text.strip(),
            "thinking": self.thinking.strip() or None,
            **cited,
            "sources": [source_record(passage) for passage in self.sources],
            "mode": self.mode,
            "model": model,
            "finish": self.answer.finish if self.answer else "interrupted",
            "stats": asdict(stats) if stats else None,
        }


def _quoted(quotation: Quotation | None) -> dict[str, Any]:
    """What an answer stands on, for JSON."""
    if quotation is None:
        return {"cited": None, "quote": ""}
    return {"cited": source_record(quotation.passage), "quote": quotation.text}


def show_turn(
    events: Iterator[Event],
    model_name: str,
    screen: Screen,
    *,
    as_json: bool = False,
    gauge: Gauge | None = None,
    thinking: bool = False,
    option: str = "--",
    every: str = "--json",
) -> Outcome:
    """Follow an answer's events: stream it (with ``as_json``: print it as an object), name its
    sources. With ``thinking`` what the model thinks is shown too, on a terminal. ``option`` comes
    before the names of settings, where one would help; ``every`` shows all sources, told where some
    are not.

    Ctrl-C ends the answer and keeps what was said; the outcome is then ``interrupted``.
    """
    outcome = Outcome()
    display = Display(screen, gauge, is_text=not as_json, thinking=thinking)
    with InterruptGuard() as guard:
        try:
            display.start()
            _follow(events, display, guard, outcome)
        except KeyboardInterrupt:
            outcome.answer = None
            outcome.keep_findings(display)
        finally:
            guard.defer, guard.pending = True, False  # the screen must be left in order
            display.end()
    if as_json:
        screen.data(outcome.as_data(model_name))
    if (not as_json or screen.sources) and (outcome.text or not outcome.interrupted):
        _show_sources(outcome, screen, every)
    if outcome.answer is not None:
        screen.show_stats(outcome.answer.stats, outcome.mode)
    for note in _endings(outcome, option):
        screen.note(f"({note})")
    return outcome


def _endings(outcome: Outcome, option: str) -> Iterator[str]:
    """What came to no end of its own."""
    thought, answer = outcome.thought, outcome.answer
    if thought is not None and thought.finish == "length":
        yield f"the thinking was cut off at its limit; {option}max-thinking allows more"
    elif thought is not None and thought.finish == "loop":
        yield "the thinking began to repeat itself and was stopped there"
    if answer is None:
        if thought is not None and not outcome.text:
            yield "stopped while the model was still thinking: there is no answer"
    elif answer.finish == "length":
        yield f"the answer was cut off; {option}max-tokens allows a longer one"
    elif answer.finish == "loop":
        yield "the answer began to repeat itself and was stopped there"


def _show_sources(outcome: Outcome, screen: Screen, every: str) -> None:
    """The one passage that the answer stands on, where it names one; else, and where
    ``--sources`` asks for them, the first that the model was given. Of an extract, where its
    sentences stand."""
    answer = outcome.answer
    if answer is not None and answer.mode == EXTRACT and not screen.sources:
        screen.show_places(answer.sources)
        return
    if answer is not None and answer.cites:
        screen.show_citation(answer)
        if not screen.sources or answer.mode == "resident":  # where no passage is given
            return
    screen.show_sources(outcome.sources, every=every)


def _follow(
    events: Iterator[Event], display: Display, guard: InterruptGuard, outcome: Outcome
) -> None:
    """Take in the events until the answer ends or is interrupted."""
    with closing(events) if isinstance(events, Generator) else nullcontext():
        for event in events:
            if isinstance(event, Thought):
                guard.defer = True
                outcome.thinking += event.text
                outcome.thought = event
                display.think(event)
            elif isinstance(event, Delta):
                guard.defer = True
                outcome.text += event.text
                display.push(event)
            elif isinstance(event, Answer):
                outcome.answer, outcome.sources = event, event.sources or outcome.sources
            elif isinstance(event, Reading):
                outcome.mode, outcome.sources = event.mode, event.passages
            elif isinstance(event, Progress):
                display.show_progress(event)
            elif isinstance(event, Running):
                display.follow(event.pace)
            elif isinstance(event, Finding):
                outcome.findings.append(event)
                display.note(" ".join(f"({source_line(event.passages[0], event.text)})".split()))
            elif isinstance(event, Notice):
                display.note(f"note: {event.text}")
            if guard.pending:
                return


class Display:
    """Shows one answer on ``screen``; with ``is_text`` False, only that it is being made.

    On a terminal the answer is drawn, with the gauge below it, and with ``thinking`` dimmed what
    the model thinks before it. Where stdout is none, it gets
    the bare text, and stderr the gauge if it is one. Else both are written to as ever.
    """

    def __init__(
        self, screen: Screen, gauge: Gauge | None, *, is_text: bool, thinking: bool = False
    ) -> None:
        self._screen = screen
        self._gauge = gauge
        self._live = _live(screen, gauge, is_text)
        draws_text = self._live is not None and self._live.draws_text
        self._writer = _Writer(screen.out) if is_text and not draws_text else None
        # Two that write to one terminal would disturb each other.
        is_shared = self._writer is not None and screen.out.isatty()
        self._stays = draws_text or (gauge is not None and not is_shared)
        self._is_waiting = True
        self._shows_thinking = thinking and is_text and screen.out.isatty()

    def start(self) -> None:
        """Show that something is going on."""
        self.show_status(_WAITING)
        if self._live is not None:
            self._live.start()

    def think(self, piece: Thought) -> None:
        """Show a piece of what the model thinks; else that it does, and at the end how long."""
        if not self._shows_thinking:
            spent = counted(piece.tokens, "token")
            self.show_status(f"thinking, {spent}")
            if piece.finish is not None:
                self.note(f"(thought for {duration(piece.seconds)}, {spent})")
            return
        self._begin()
        if self._live is not None:
            self._live.think(piece.text)
        if self._writer is not None:
            self._writer.think(piece.text)

    def push(self, piece: Delta) -> None:
        """Show a piece of the answer, and how fast it came."""
        self._begin()
        if self._live is not None:
            self._live.push(piece.text)
        if self._writer is not None:
            self._writer.push(piece.text)
        if self._gauge is not None and piece.stats is not None:
            self._gauge.follow(piece.stats)

    def _begin(self) -> None:
        """Make way for the first text."""
        if self._is_waiting:
            self._is_waiting = False
            self.show_status("")
            if self._live is not None and not self._stays:
                self._live.stop()
                self._live = None

    def show_status(self, text: str | Callable[[], str]) -> None:
        """Show what is going on, where moving things may be drawn; as ``Live`` does."""
        if self._live is not None and self._screen.is_lively:
            self._live.show_status(text)

    def show_progress(self, progress: Progress) -> None:
        """Show how much was read; where nothing may be drawn, only that there is much."""
        done, total = progress.done, f"{progress.total:,} {progress.unit}"
        if self._screen.is_lively:
            self.show_status(f"{_WAITING} {done:,} of {total}")
        elif done == 0 and progress.total > 1:
            self._screen.note(f"{_WAITING} {total}, one after the other")

    def follow(self, pace: Callable[[], tuple[int, int]]) -> None:
        """Show how far the model is through its prompt, where moving things may be drawn."""

        def status() -> str:
            done, total = pace()
            return f"{_WAITING} {done:,} of {total:,} tokens" if total > 1 else _WAITING

        self.show_status(status)

    def note(self, text: str) -> None:
        """A line for the person, on stderr."""
        if self._live is not None and self._screen.is_lively:
            self._live.note(text)
        else:
            self._screen.note(text)

    def end(self) -> None:
        """Leave the whole text on the screen, its last line ended."""
        try:
            if self._live is not None:
                self._live.stop()
        finally:
            if self._writer is not None:
                self._writer.end()


def _live(screen: Screen, gauge: Gauge | None, is_text: bool) -> Live | None:
    """What draws, if anything can: the text too, or only what is going on."""
    draws_text = is_text and screen.out.isatty() and (not screen.plain or gauge is not None)
    if not draws_text and not screen.is_lively:
        return None
    from nazx_cli.ui.terminal.live import Live, can_draw
    from nazx_cli.ui.terminal.stream import MarkdownStream, PlainStream, ThoughtfulStream

    shown = gauge if screen.is_lively else None
    if draws_text and can_draw(screen.out):
        return Live(
            screen.out, ThoughtfulStream(PlainStream if screen.plain else MarkdownStream), shown
        )
    if screen.is_lively and can_draw(screen.err):
        return Live(screen.err, None, shown)
    return None


class _Writer:
    """Writes an answer as it comes, without control sequences, and ends its last line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._filter = ControlFilter()
        self._at_line_start = True
        self._is_thinking = False

    def think(self, text: str) -> None:
        """What is thought, between marks: here it cannot be dimmed."""
        self._put(self._filter.push(text if self._is_thinking else f"<think>\n{text}"))
        self._is_thinking = True

    def push(self, text: str) -> None:
        self._end_thinking()
        self._put(self._filter.push(text))

    def _end_thinking(self) -> None:
        if self._is_thinking:
            self._is_thinking = False
            self._put(self._filter.flush())
            self._put("</think>\n\n" if self._at_line_start else "\n</think>\n\n")

    def end(self) -> None:
        self._end_thinking()
        self._put(self._filter.flush())
        if not self._at_line_start:
            self._put("\n")

    def _put(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._out.flush()
            self._at_line_start = text.endswith("\n")
