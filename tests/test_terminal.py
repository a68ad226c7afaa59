"""A real ``nazx`` process in a real terminal, for what only that can show."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest
from cli_helpers import tiny_checkpoint

pexpect = pytest.importorskip("pexpect")
pyte = pytest.importorskip("pyte")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))


class Terminal:
    """A process in a terminal of 80 columns, and what that terminal shows."""

    def __init__(self, *arguments: str) -> None:
        self.screen = pyte.Screen(80, 30)
        self._stream = pyte.Stream(self.screen)
        self.process = pexpect.spawn(
            sys.executable,
            ["-m", "nazx_cli.cli", *arguments],
            encoding="utf-8",
            dimensions=(30, 80),
            timeout=30,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        self.raw = ""

    @property
    def text(self) -> str:
        """What the screen shows, without blank lines."""
        return "\n".join(line.rstrip() for line in self.screen.display if line.strip())

    def until(self, pattern: str) -> str:
        """Read on until the screen's text matches; the text."""
        end = time.monotonic() + 30
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, f"no {pattern!r} in:\n{self.text}"
            self._read()
        return self.text

    def send(self, keys: str) -> None:
        self.process.send(keys)

    def end(self) -> int:
        """Wait until the process has ended; its exit code."""
        end = time.monotonic() + 30
        try:
            while time.monotonic() < end:
                self._read()
        except pexpect.EOF:
            pass
        self.process.close()
        return int(self.process.exitstatus)

    def _read(self) -> None:
        try:
            text = self.process.read_nonblocking(4096, timeout=0.2)
        except pexpect.TIMEOUT:
            return
        self.raw += text
        self._stream.feed(text)
        if "\x1b[6n" in text:  # prompt-toolkit asks where the cursor is
            cursor = self.screen.cursor
            self.process.send(f"\x1b[{cursor.y + 1};{cursor.x + 1}R")


def test_a_chat_streams_and_leaves_quietly(model: str) -> None:
    terminal = Terminal("chat", "-m", model, "--max-tokens", "12")
    assert "1,024 tokens" in terminal.until(r">>>$")
    terminal.send("First?\r")
    shown = terminal.until(r"cut off[^\n]*\n>>>$")
    assert re.search(r">>> First\?\n[a-z ]{6,}\n", shown), shown
    terminal.send("\x04")
    assert terminal.end() == 0
    assert "Traceback" not in terminal.text


def test_ctrl_c_stops_the_answer_keeps_it_and_returns_to_the_prompt(model: str) -> None:
    terminal = Terminal("chat", "-m", model, "--max-tokens", "1000000")
    terminal.until(r">>>$")
    terminal.send("First?\r")
    terminal.until(r"First\?\n[a-z ]{20}")
    terminal.process.sendintr()
    terminal.until(r"\(stopped; what was said is kept\)\n>>>$")
    terminal.send("/exti\r")
    terminal.until(r"did you mean /exit\?\n>>>$")
    terminal.send("/exit\r")
    assert terminal.end() == 0


def test_ctrl_c_twice_at_the_prompt_leaves(model: str) -> None:
    terminal = Terminal("chat", "-m", model)
    terminal.until(r">>>$")
    terminal.send("\x03")
    terminal.until(r"Ctrl-C again[^\n]*\n>>>$")
    terminal.send("\x03")
    assert terminal.end() == 0


def test_ask_names_its_sources_in_a_terminal_and_clears_its_progress_bars(
    model: str, tmp_path: Path
) -> None:
    book = tmp_path / "book.txt"
    book.write_text("The fox bought a lantern.\n")
    terminal = Terminal("ask", "-m", model, "-f", str(book), "--max-tokens", "12", "The fox?")
    assert terminal.end() == 0
    assert "sources:" in terminal.text
    assert "book.txt:1" in terminal.text.replace("\n", "")
    assert "loading" in terminal.raw and "loading" not in terminal.text


def test_no_color_is_honoured(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal("ask", "-m", model, "--max-tokens", "12", "Who?")
    assert terminal.end() == 0
    assert "loading" in terminal.raw
    assert not re.search(r"\x1b\[[0-9;]*[349][0-7]m", terminal.raw)
