"""A whole turn on a terminal and off it: answer, gauge and notes, and what interrupts them."""

from __future__ import annotations

import io
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fixed_gauge import gauge
from terminals import Board

from nazx_cli.engine.generator import Stats
from nazx_cli.errors import NazxError
from nazx_cli.reading.passages import Passage
from nazx_cli.session.events import Answer, Delta, Event, Notice, Progress, Reading, Running
from nazx_cli.ui.terminal.gauge_line import Gauge
from nazx_cli.ui.terminal.live import Live
from nazx_cli.ui.terminal.screen import Screen
from nazx_cli.ui.terminal.stream import MarkdownStream, ThoughtfulStream
from nazx_cli.ui.turn import Outcome, show_turn

STATS = Stats(1_820, 35_400_000, 9, 0.5, 12.5)


def answer(text: str, size: int = 4, *, before: tuple[Event, ...] = ()) -> Iterator[Event]:
    yield from before
    for at in range(0, len(text), size):
        yield Delta(text[at : at + size], STATS)
    yield Answer(text, (), "stop", STATS, "none")


def run(events: Iterator[Event], board: Board, bar: Gauge | None = None, **more: bool) -> Outcome:
    return show_turn(events, "model", Screen(board, board, **more), gauge=bar)


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("has_gauge", [True, False])
def test_a_turn_on_a_terminal_shows_the_rendered_answer(columns: int, has_gauge: bool) -> None:
    board = Board(columns, 24)
    bar = gauge() if has_gauge else None
    outcome = run(answer("Some **bold** 漢字 🦊\n\n- item\n"), board, bar)
    assert outcome.text == "Some **bold** 漢字 🦊\n\n- item\n"
    assert board.shown == ["Some bold 漢字 🦊".replace("漢字", "漢字"), "", "• item"]
    assert not board.screen.cursor.hidden


def test_plain_leaves_the_marks_gauge_or_not() -> None:
    for bar in (gauge(), None):
        board = Board()
        run(answer("Some **bold**\n- item"), board, bar, plain=True)
        assert board.shown == ["Some **bold**", "- item"]


def test_notes_stand_above_the_answer_and_control_sequences_nowhere() -> None:
    board = Board()
    text = "red \x1b[31mtext\x1b]0;owned\x07 \x1b[2Jend"
    run(answer(text, 1, before=(Notice("mind \x1b[2Jthis"),)), board, gauge())
    assert board.shown == ["note: mind this", "red text end"]
    assert "31m" not in "".join(board.writes) and "owned" not in "".join(board.writes)


def test_notes_break_between_words() -> None:
    board = Board()
    told = (
        "the conversation outgrew the window: its first turn is left out from now on, and searched"
    )
    run(answer("Yes.", before=(Notice(told),)), board, gauge())
    assert board.shown == [f"note: {told[:72]}", told[73:], "Yes."]


def test_the_gauge_and_the_wait_move_at_least_twice_a_second() -> None:
    board = Board()
    times: list[float] = []
    write = board.write

    def note_time(text: str) -> int:
        times.append(time.monotonic())
        return write(text)

    board.write = note_time  # type: ignore[method-assign]

    def events() -> Iterator[Event]:
        yield Progress(3, 12)
        time.sleep(1.5)
        assert re.search(r"reading 3 of 12 blocks  \d s", board.shown[0])
        assert "resident memory" in board.shown[1]
        yield Delta("x", STATS)
        time.sleep(0.6)
        assert board.shown[0] == "x" and "12 tok/s" in board.shown[1]
        yield Answer("x", (), "stop", STATS, "none")

    begin = time.monotonic()
    run(events(), board, gauge())
    waiting = [at for at in times if at - begin < 1.5]
    assert len(waiting) >= 3
    assert board.shown == ["x"]


def test_the_wait_tells_how_far_the_model_is_through_its_prompt() -> None:
    board, done = Board(), [0]

    def events() -> Iterator[Event]:
        yield Running(lambda: (done[0], 1_024))
        for done[0] in (100, 1_000):
            time.sleep(0.6)
            assert re.search(rf"reading {done[0]:,} of 1,024 tokens  \d s", board.shown[0])
        yield Running(lambda: (0, 0))  # nothing has to run
        time.sleep(0.6)
        assert re.search(r"reading  \d s", board.shown[0])
        yield Delta("x", STATS)
        yield Answer("x", (), "stop", STATS, "none")

    run(events(), board, gauge())
    assert board.shown == ["x"]


def test_a_long_reading_is_told_once_where_nothing_can_be_drawn() -> None:
    def said(blocks: int, quiet: bool) -> str:
        err = io.StringIO()
        steps = tuple(Progress(done, blocks) for done in range(blocks + 1))
        show_turn(answer("x", before=steps), "model", Screen(io.StringIO(), err, quiet=quiet))
        return err.getvalue()

    assert said(1_200, quiet=False) == "reading 1,200 blocks, one after the other\n"
    assert said(1_200, quiet=True) == said(1, quiet=False) == ""


def test_ctrl_c_keeps_what_was_said_and_puts_the_terminal_in_order() -> None:
    board = Board()

    def events() -> Iterator[Event]:
        yield Delta("half an ", STATS)
        signal.raise_signal(signal.SIGINT)
        yield Delta("answer", STATS)
        yield Delta("never seen", STATS)

    outcome = run(events(), board, gauge())
    assert outcome.interrupted and outcome.text == "half an answer"
    assert board.shown == ["half an answer"]
    assert not board.screen.cursor.hidden
    assert not any(thread.name == "nazx-live" for thread in threading.enumerate())


PASSAGE = Passage("book.txt", 1, 2, 0, 9, "漢字 and a good many words more than that")


def test_a_stop_before_the_first_word_names_no_sources() -> None:
    board = Board()

    def events() -> Iterator[Event]:
        yield Reading("recall", (PASSAGE,))
        signal.raise_signal(signal.SIGINT)
        yield Delta("never seen", STATS)

    outcome = run(events(), board, gauge())
    assert outcome.interrupted and outcome.text == ""
    assert board.shown == []


def test_at_most_five_sources_take_a_row_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    board = Board(40)
    passages = [replace(PASSAGE, start=n * 9, stop=n * 9 + 9) for n in range(7)]
    long = replace(PASSAGE, document=f"far/{'away' * 20}.txt")

    def events() -> Iterator[Event]:
        yield Reading("recall", (passages[0], long, *passages))
        yield from answer("Yes.")

    run(events(), board, gauge())
    assert board.shown[:3] == ["Yes.", "", "given to the model as sources:"]
    assert board.shown[3] == "  [1] book.txt:1-2  “漢字 and a good…”"
    assert board.shown[4].startswith("  [2] …") and board.shown[4].endswith("away.txt:1-2")
    assert [row[:5] for row in board.shown[5:8]] == ["  [4]", "  [5]", "  [6]"]
    assert board.shown[8:] == ["  and 3 more; --json shows all of them"]


def test_an_error_leaves_the_terminal_in_order() -> None:
    board = Board()

    def events() -> Iterator[Event]:
        yield Delta("so far", STATS)
        raise NazxError("it broke", "mend it")

    with pytest.raises(NazxError):
        run(events(), board, gauge())
    assert board.shown == ["so far"]
    assert not board.screen.cursor.hidden


def test_without_a_terminal_there_is_only_the_bare_answer() -> None:
    out, err = io.StringIO(), io.StringIO()
    show_turn(answer("Some **bold**\n- item"), "m", Screen(out, err), gauge=gauge())
    assert (out.getvalue(), err.getvalue()) == ("Some **bold**\n- item\n", "")


def test_with_stdout_redirected_the_gauge_is_on_stderr_alone() -> None:
    out, board = io.StringIO(), Board()

    def events() -> Iterator[Event]:
        yield Delta("Some **bold**", STATS)
        time.sleep(0.6)
        assert "12 tok/s" in board.shown[0]
        yield Answer("Some **bold**", (), "stop", STATS, "none")

    show_turn(events(), "m", Screen(out, board), gauge=gauge())
    assert out.getvalue() == "Some **bold**\n"
    assert board.shown == []


def test_json_on_a_terminal_is_one_object_and_nothing_else() -> None:
    board = Board(200)
    show_turn(answer("Some **bold**"), "m", Screen(board, board), as_json=True, gauge=gauge())
    assert json.loads("".join(board.shown))["answer"] == "Some **bold**"


def test_a_dumb_terminal_gets_plain_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    board = Board()
    run(answer("Some **bold**"), board, gauge())
    assert "".join(board.writes) == "Some **bold**\n"


def test_quiet_shows_the_answer_without_gauge_or_wait() -> None:
    board = Board()
    run(answer("Some **bold**"), board, gauge(), quiet=True)
    assert board.shown == ["Some bold"]
    assert "resident" not in "".join(board.writes) and "reading" not in "".join(board.writes)


def test_no_color_takes_every_colour_from_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    board = Board()
    run(answer("`code`\n\n```py\ndef f(): pass\n```"), board, gauge())
    assert not re.search(r"\x1b\[[0-9;]*[349][0-7]m", "".join(board.writes))
    assert board.shown == ["code", "", "```py", "def f(): pass", "```"]


def test_what_stops_the_drawing_is_told() -> None:
    class Broken(Board):
        def write(self, text: str) -> int:
            raise OSError("the terminal is gone")

    live = Live(Broken(), ThoughtfulStream(MarkdownStream), None)
    live.start()
    live.push("text")
    time.sleep(0.2)
    with pytest.raises(OSError, match="gone"):
        live.stop()
