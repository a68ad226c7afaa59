"""The gauge: what it says in how much room, its colours, and ``nazx gauge``."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cli_helpers import run_nazx
from prompt_toolkit.formatted_text import fragment_list_width, to_formatted_text
from rich.cells import cell_len
from terminals import Board, BoardArea

from nazx_cli.engine.generator import Stats
from nazx_cli.memory import probe
from nazx_cli.memory.probe import Reading, read_memory, resident_bytes
from nazx_cli.session.events import Usage
from nazx_cli.session.saving.store import Store
from nazx_cli.ui.terminal.gauge_line import Gauge, draw
from nazx_cli.ui.terminal.interrupts import InterruptGuard

GB = 10**9
CPU = Reading("cpu", 8 * GB, 4 * GB, 16 * GB, "resident memory")
CUDA = Reading("cuda", 6_200_000_000, GB, 8 * GB, "VRAM", 6_900_000_000, 7_400_000_000)
USAGE = Usage((("alice.txt", 41_234),), 41_234, 1_812, 2_052, 1_812, 35_400_000, 0)
MANY = Usage(
    (("alice.txt", 41_234), ("漢字" * 30 + "\x1b[31m", 1_200_000)),
    1_241_234,
    123_812,
    2_052,
    2_010,
    141_000_000,
    12,
)


def line(reading: Reading, width: int, **more: object) -> str:
    return "".join(piece.text for piece in draw(reading, width, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize("usage", [None, USAGE, MANY, replace(USAGE, window=None)])
@pytest.mark.parametrize("reading", [CPU, CUDA, Reading("mps", 0, 0, 0)])
def test_it_is_one_line_never_wider_than_there_is_room(
    reading: Reading, usage: Usage | None
) -> None:
    for width in (*range(1, 240), 1000):
        text = line(reading, width, usage=usage, speed=23.4)
        assert cell_len(text) <= width
        assert "\n" not in text and "\x1b" not in text


def test_at_80_columns_it_names_all_that_counts() -> None:
    text = line(CPU, 80, usage=USAGE, speed=23.4)
    for part in ("resident", "50%", "8.00/16.0 GB", "ctx 35 MB", "docs 41k", "1.8k/2.1k", "23/s"):
        assert part in text
    assert "VRAM" in line(CUDA, 80, usage=USAGE, speed=23.4)


def test_what_follows_the_bar_stays_where_it_is_while_numbers_gain_digits() -> None:
    moved, widths = 0, range(100, 200, 7)
    for width in widths:
        places = set()
        for said, speed in ((995, 9.6), (1_005, 9.8), (1_006, 10.2), (9_999, 9.9), (10_020, 12.5)):
            usage = replace(USAGE, conversation_tokens=said, window=None)
            places.add(line(CPU, width, usage=usage, speed=speed).index("%"))
        moved += len(places) - 1
    assert moved < len(widths)  # digits come or go four times at each


def test_at_200_columns_it_says_everything_in_full() -> None:
    text = line(CPU, 200, usage=USAGE, speed=23.4)
    assert text.startswith("resident memory ████████████░░░░░░░░░░░░ 50% 8.00 GB of 16.0 GB")
    assert "context 35.4 MB" in text
    assert "documents 41,234 tokens (alice.txt)" in text
    assert "conversation 1,812 tokens, window 1,812 of 2,052" in text
    assert text.endswith("23.4 tokens/s")
    cuda = line(CUDA, 200, usage=USAGE, speed=23.4)
    assert "6.20 GB of 8.00 GB" in cuda
    assert "reserved 6.90 GB, whole device 7.40 GB" in cuda


def test_turns_that_joined_the_documents_are_told_at_both_widths() -> None:
    assert "12 turns in docs" in line(CPU, 80, usage=MANY, speed=23.4)
    assert "12 turns in documents" in line(CPU, 200, usage=MANY, speed=23.4)
    assert "1 turn in documents" in line(CPU, 200, usage=replace(USAGE, left_out=1))


def test_documents_in_the_window_are_not_called_chat() -> None:
    usage = replace(USAGE, window=64_000, window_used=43_046)
    assert "window 43k/64k" in line(CPU, 80, usage=usage)


def test_the_limit_replaces_what_the_device_has() -> None:
    assert "80% ! 8.00 GB of 10.0 GB" in line(CPU, 100, limit=10 * GB)
    assert "%" not in line(Reading("mps", 5 * GB, 0, 0), 100)


@pytest.mark.parametrize(
    ("percent", "color", "mark"),
    [
        (10, "green", "10% 1"),
        (74, "green", "74% 7"),
        (75, "yellow", "75% ! "),
        (89, "yellow", "89% ! "),
        (90, "red", "90% !! "),
        (130, "red", "130% !! "),
    ],
)
def test_it_is_yellow_from_75_percent_and_red_from_90(percent: int, color: str, mark: str) -> None:
    reading = Reading("cpu", percent * GB, 0, 100 * GB, "resident memory")
    pieces = draw(reading, 80)
    assert [piece.color for piece in pieces] == ["", color, ""]
    assert mark in "".join(piece.text for piece in pieces)


def test_a_terminal_without_unicode_gets_ascii() -> None:
    assert line(CPU, 80, usage=USAGE, speed=2.0, is_unicode=False).isascii()


def full(limit: int | None = None) -> Gauge:
    return Gauge(lambda: USAGE, "cpu", limit)


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize(("share", "color"), [(0.1, "green"), (0.8, "brown"), (0.95, "red")])
def test_the_colour_reaches_the_terminal(columns: int, share: float, color: str) -> None:
    board = Board(columns)
    gauge = full(int(resident_bytes() / share))
    BoardArea(board).draw([], [gauge.rich_text(columns)])
    assert board.colors(0) == {color, "default"}


def test_no_color_leaves_the_text_and_takes_the_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    board = Board(80)
    gauge = full(int(resident_bytes() / 0.95))
    BoardArea(board).draw([], [gauge.rich_text(80)])
    assert board.colors(0) == {"default"}
    assert "% !! " in board.shown[0]


def test_a_toolbar_gets_the_same_line() -> None:
    gauge = full()
    fragments = to_formatted_text(gauge.fragments(80))
    assert fragment_list_width(fragments) <= 80
    assert "".join(part[1] for part in fragments) == gauge.rich_text(80).plain
    assert any("ansigreen" in part[0] for part in fragments)


def test_memory_is_looked_at_four_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    def look(device: str) -> Reading:
        looks.append(device)
        return CPU

    monkeypatch.setattr("nazx_cli.ui.terminal.gauge_line.read_memory", look)
    gauge = full()
    for _ in range(50):
        gauge.pieces(80)
    assert looks == ["cpu"]
    time.sleep(0.3)
    gauge.pieces(80)
    assert looks == ["cpu", "cpu"]


def test_tokens_are_counted_only_on_the_thread_that_owns_the_chat() -> None:
    counts: list[int] = []

    def usage() -> Usage:
        counts.append(threading.get_ident())
        return USAGE

    gauge = Gauge(usage, "cpu")
    other = threading.Thread(target=gauge.pieces, args=(80,))
    other.start()
    other.join()
    assert counts == []
    gauge.pieces(80)
    assert counts == [threading.get_ident()]


def test_the_speed_is_that_of_the_answer() -> None:
    gauge = full()
    gauge.follow(Stats(100, 0, 1, 0.5, 0.0))
    assert gauge.speed is None
    gauge.follow(Stats(101, 0, 2, 0.5, 12.5))
    assert "12.5 tokens/s" in gauge.rich_text(200).plain


def test_a_reading_of_the_cpu_is_named_resident_memory() -> None:
    reading = read_memory("cpu")
    assert reading.kind == "resident memory"
    assert 0 < reading.used <= reading.in_use <= reading.total
    assert reading.reserved == 0


def test_the_memory_of_another_process_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert abs(resident_bytes(os.getpid()) - resident_bytes()) < 50_000_000
    assert resident_bytes(2**22 + 1) == 0
    monkeypatch.setattr(probe, "_PROC", Path("/nowhere"))
    assert resident_bytes(2**22 + 1) == 0


def test_the_command_shows_memory_and_every_running_chat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAZX_HOME", str(tmp_path))
    out, _, code = run_nazx("gauge", "--device", "cpu")
    assert code == 0
    assert out.startswith("cpu memory in use ") and "no chat is running" in out
    file = Store(tmp_path / "sessions").open("my talk", create=True)
    try:
        out, _, _ = run_nazx("gauge", "--device", "cpu")
        assert f"my talk  pid {os.getpid()}" in out
        data = json.loads(run_nazx("gauge", "--device", "cpu", "--json")[0])
    finally:
        file.close()
    assert data["device"] == "cpu"
    assert 0 < data["used_bytes"] <= data["total_bytes"]
    (chat,) = data["chats"]
    assert (chat["session"], chat["pid"]) == ("my talk", os.getpid())
    assert chat["resident_bytes"] > 1_000_000


def test_watching_goes_on_until_ctrl_c_and_ends_well(tmp_path: Path) -> None:
    pexpect = pytest.importorskip("pexpect")
    process = pexpect.spawn(
        sys.executable,
        ["-m", "nazx_cli", "gauge", "--watch", "--device", "cpu", "--interval", "0.1"],
        encoding="utf-8",
        dimensions=(24, 80),
        timeout=60,
        env={**os.environ, "TERM": "xterm-256color", "NAZX_HOME": str(tmp_path)},
    )
    board = Board(80, 24)
    process.logfile_read = board
    process.expect("no chat is running")  # once: a frame that is as the last is not written
    process.sendintr()
    process.expect(pexpect.EOF)
    process.close()
    assert process.exitstatus == 0
    assert len(board.shown) <= 3 and board.shown[0].startswith("cpu memory in use")
    assert not board.screen.cursor.hidden


def test_watching_without_a_terminal_prints_one_line_a_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAZX_HOME", str(tmp_path))
    naps: list[float] = []

    def wait(guard: InterruptGuard, seconds: float) -> bool:
        naps.append(seconds)
        if len(naps) == 3:
            signal.raise_signal(signal.SIGINT)
        return guard.pending

    monkeypatch.setattr(InterruptGuard, "wait", wait)
    out, _, code = run_nazx("gauge", "--watch", "--device", "cpu", "--interval", "0.5")
    assert (code, naps) == (0, [0.5, 0.5, 0.5])
    lines = out.splitlines()
    assert len(lines) == 3 and all(each.startswith("cpu memory in use") for each in lines)
