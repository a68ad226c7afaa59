"""A real ``nazx`` process in a real terminal, for what only that can show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_helpers import tiny_checkpoint

pytest.importorskip("pexpect")
pytest.importorskip("pyte")

from pseudo_terminal import PROMPT, Terminal


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))


def test_a_chat_streams_takes_pasted_lines_as_one_question_and_leaves_quietly(model: str) -> None:
    terminal = Terminal("chat", "-m", model, "--max-tokens", "12")
    assert "1,024 tokens" in terminal.until(r">>>$")
    terminal.send("First?\r")
    shown = terminal.until(r"cut off[^\n]*\n>>>$")
    assert re.search(r">>> First\?\n[a-z ]{6,}\n", shown), shown
    terminal.send("\x1b[200~first line\n/exit\nlast line\x1b[201~")
    terminal.until(r"last line$")
    terminal.send("\r")
    terminal.until(r"last line\n(.*\n)*.*cut off[^\n]*\n>>>$")
    shown = terminal.enter("/show")
    assert re.search(r"^turns +2$", shown, re.MULTILINE), shown
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
    terminal.until(r"did you mean\s/exit\?\n>>>$")
    terminal.send("/exit\r")
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


def test_the_gauge_stands_below_the_prompt_and_follows_the_width(model: str) -> None:
    terminal = Terminal("chat", "-m", model, "--max-tokens", "12")
    narrow = terminal.until(r">>>$(\n.*)*\d%").splitlines()[-1]
    assert "resident" in narrow
    terminal.resize(200)
    terminal.send("x")
    wide = terminal.until(r"conversation").splitlines()[-1]
    assert len(wide) > len(narrow)
    assert sum("resident" in line for line in terminal.text.splitlines()) == 1
    terminal.send("\x03/exit\r")
    assert terminal.end() == 0


def test_the_gauge_can_be_left_out_and_ctrl_c_twice_at_the_prompt_leaves(model: str) -> None:
    terminal = Terminal("chat", "-m", model, "--no-gauge", "--max-tokens", "12")
    terminal.until(PROMPT)
    terminal.enter("First?")
    terminal.send("\x03")
    terminal.until(r"Ctrl-C again[^\n]*\n>>>$")
    terminal.send("\x03")
    assert terminal.end() == 0
    assert "resident" not in terminal.raw


def test_the_gauge_is_there_while_an_answer_streams_and_needs_no_colours(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal("chat", "-m", model, "--max-tokens", "1000000")
    terminal.until(PROMPT)
    terminal.send("First?\r")
    terminal.until(r"First\?\n[a-z ]{20}(.*\n)*.*resident.*tok")
    terminal.process.sendintr()
    terminal.until(r"\(stopped; what was said is kept\)\n>>>$")
    terminal.process.sendintr()  # the second one
    assert terminal.end() == 0
    assert not re.search(r"\x1b\[([0-9;]*;)?[349][0-7]m", terminal.raw)


def test_tab_shows_what_there_is_and_completes(model: str, tmp_path: Path) -> None:
    (tmp_path / "a fox.txt").write_text("The fox bought a lantern.\n")
    (tmp_path / "an owl.txt").write_text("The owl kept a ledger.\n")
    terminal = Terminal("chat", "-m", model, columns=200)
    terminal.until(PROMPT)
    terminal.send(f"/read {tmp_path}/\t")
    menu = terminal.until(r"an owl\.txt")
    assert "a fox.txt" in menu
    terminal.send("\t\t\r")
    terminal.until(r"an\s+owl\.txt\s+\(23\s+tokens\)")
    terminal.send("/doc\t\r")
    terminal.until(r"NAME +TOKENS")
    terminal.send("\x04")
    assert terminal.end() == 0


def test_documents_are_read_dropped_and_brought_back(model: str, tmp_path: Path) -> None:
    book = tmp_path / "fox.txt"
    book.write_text("The fox bought a lantern.\n")
    terminal = Terminal("chat", "-m", model, columns=200)
    terminal.until(PROMPT)
    assert "read" in terminal.enter(f"/read {book}")
    terminal.until(r"documents 26 tokens")
    assert re.search(
        r"dropped\s+\S*fox\.txt\s+\(26\s+tokens\)\s+in (\d+|<1)\s+ms", terminal.enter("/drop 1")
    )
    assert "undone: dropped" in terminal.enter("/undo")
    assert "There are no documents" not in terminal.enter("/docs")
    terminal.send("\x04")
    assert terminal.end() == 0


@pytest.mark.slow
def test_a_killed_chat_resumes_where_it_was(model: str, tmp_path: Path) -> None:
    book = tmp_path / "fox.txt"
    book.write_text("The fox bought a lantern.\n")
    terminal = Terminal("chat", "-m", model, "-f", str(book), "--max-tokens", "4")
    terminal.until(PROMPT)
    terminal.enter("What did the fox buy?")
    terminal.send("/set parameter max_tokens 1000000\r")
    terminal.until(r"max_tokens is 1000000\n>>>$")
    terminal.send("And then?\r")
    terminal.until(r"And then\?\n[a-z ]{20}")
    terminal.kill()
    terminal = Terminal("chat", "--resume", columns=200)
    shown = "".join(terminal.until(PROMPT).split())  # where it wraps, the model's path decides
    assert "1turnsofar" in shown and "Whatdidthefoxbuy?" in shown
    assert "fox.txt" in terminal.enter("/docs")
    assert re.search(r"max_tokens +1000000", terminal.enter("/show"))
    terminal.send("\x04")
    assert terminal.end() == 0
