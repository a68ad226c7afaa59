"""One question and its answer as a person sees it: streamed, interruptible, with sources."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TextIO

from nazx_cli.documents.control import ControlFilter, strip_control
from nazx_cli.reading.sources import source_record
from nazx_cli.session.events import Answer, Delta, Notice, Progress, Reading
from nazx_cli.ui.interrupt import InterruptGuard
from nazx_cli.ui.screen import Screen

if TYPE_CHECKING:
    from nazx_cli.reading.passages import Passage
    from nazx_cli.session.session import Session


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


class AnswerStream:
    """Writes an answer as it comes, without control sequences, and ends its last line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._filter = ControlFilter()
        self._at_line_start = True

    def write(self, text: str) -> None:
        """Show a piece of the answer."""
        self._put(self._filter.push(text))

    def end(self) -> None:
        """Show what was held back, and end the line."""
        self._put(self._filter.flush())
        if not self._at_line_start:
            self._put("\n")

    def _put(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._out.flush()
            self._at_line_start = text.endswith("\n")


def show_turn(session: Session, question: str, screen: Screen, *, as_json: bool = False) -> Outcome:
    """Ask, stream the answer (with ``as_json``: print it as an object), name its sources.

    Ctrl-C ends the answer and keeps what was said; the outcome is then ``interrupted``.
    """
    outcome = Outcome()
    stream = None if as_json else AnswerStream(screen.out)
    try:
        _follow(session, question, screen, stream, outcome)
    except KeyboardInterrupt:
        outcome.answer = None
    finally:
        if stream is not None:
            stream.end()
    if as_json:
        screen.data(outcome.as_data(session.lm.name))
    if not as_json or screen.sources:
        screen.show_sources(outcome.sources)
    if outcome.answer is not None:
        screen.show_stats(outcome.answer.stats, outcome.mode)
        if outcome.answer.finish == "length":
            screen.note("(the answer was cut off; --max-tokens allows a longer one)")
    return outcome


def _follow(
    session: Session,
    question: str,
    screen: Screen,
    stream: AnswerStream | None,
    outcome: Outcome,
) -> None:
    """Take in the session's events until the answer ends or is interrupted."""
    with InterruptGuard() as guard, screen.bar("reading") as waiting:
        waiting.start()
        with closing(session.ask(question)) as events:
            for event in events:
                if isinstance(event, Delta):
                    waiting.stop()
                    guard.defer = True
                    outcome.text += event.text
                    if stream is not None:
                        stream.write(event.text)
                elif isinstance(event, Answer):
                    outcome.answer = event
                elif isinstance(event, Reading):
                    outcome.mode, outcome.sources = event.mode, event.passages
                elif isinstance(event, Progress):
                    waiting.update(event.done, event.total)
                elif isinstance(event, Notice):
                    waiting.stop()
                    screen.note(f"note: {event.text}")
                if guard.pending:
                    return
