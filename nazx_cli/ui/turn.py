"""One question and its answer as a person sees it: streamed, interruptible, with sources."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nazx_cli.documents.control import strip_control
from nazx_cli.reading.passages import source_record
from nazx_cli.session.events import Answer, Delta, Event, Notice, Progress, Reading
from nazx_cli.ui.display import Display
from nazx_cli.ui.interrupt import InterruptGuard
from nazx_cli.ui.screen import Screen

if TYPE_CHECKING:
    from nazx_cli.reading.passages import Passage
    from nazx_cli.ui.gauge import Gauge


@dataclass
class Outcome:
    """What came of a question; ``answer`` is None where it was interrupted."""

    text: str = ""
    mode: str = "none"
    sources: tuple[Passage, ...] = ()
    answer: Answer | None = None

    @property
    def interrupted(self) -> bool:
        """True where Ctrl-C ended the answer."""
        return self.answer is None

    def as_data(self, model: str) -> dict[str, Any]:
        """The outcome as one JSON object."""
        stats = self.answer.stats if self.answer else None
        return {
            "answer": strip_control(self.text.strip()),
            "sources": [_source(passage) for passage in self.sources],
            "mode": self.mode,
            "model": model,
            "finish": self.answer.finish if self.answer else "interrupted",
            "stats": asdict(stats) if stats else None,
        }


def _source(passage: Passage) -> dict[str, Any]:
    return {
        key: strip_control(value) if isinstance(value, str) else value
        for key, value in source_record(passage).items()
    }


def show_turn(
    events: Iterator[Event],
    model_name: str,
    screen: Screen,
    *,
    as_json: bool = False,
    gauge: Gauge | None = None,
    longer: str = "--max-tokens",
) -> Outcome:
    """Follow an answer's events: stream it (with ``as_json``: print it as an object), name its
    sources. ``longer`` is what allows longer answers, told where one was cut off.

    Ctrl-C ends the answer and keeps what was said; the outcome is then ``interrupted``.
    """
    outcome = Outcome()
    display = Display(screen, gauge, is_text=not as_json)
    with InterruptGuard() as guard:
        try:
            display.start()
            _follow(events, display, gauge, guard, outcome)
        except KeyboardInterrupt:
            outcome.answer = None
        finally:
            guard.defer, guard.pending = True, False  # the screen must be left in order
            display.end()
    if as_json:
        screen.data(outcome.as_data(model_name))
    if (not as_json or screen.sources) and (outcome.text or not outcome.interrupted):
        screen.show_sources(outcome.sources)
    if outcome.answer is not None:
        screen.show_stats(outcome.answer.stats, outcome.mode)
        if outcome.answer.finish == "length":
            screen.note(f"(the answer was cut off; {longer} allows a longer one)")
    return outcome


def _follow(
    events: Iterator[Event],
    display: Display,
    gauge: Gauge | None,
    guard: InterruptGuard,
    outcome: Outcome,
) -> None:
    """Take in the events until the answer ends or is interrupted."""
    with ExitStack() as stack:
        if isinstance(events, Generator):
            stack.enter_context(closing(events))
        for event in events:
            if isinstance(event, Delta):
                guard.defer = True
                outcome.text += event.text
                display.push(event.text)
                if gauge is not None and event.stats is not None:
                    gauge.follow(event.stats)
            elif isinstance(event, Answer):
                outcome.answer = event
            elif isinstance(event, Reading):
                outcome.mode, outcome.sources = event.mode, event.passages
            elif isinstance(event, Progress):
                display.progress(event.done, event.total)
            elif isinstance(event, Notice):
                display.note(f"note: {event.text}")
            if guard.pending:
                return
