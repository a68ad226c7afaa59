"""The command line: what goes to stdout and stderr, and the exit codes.

A tiny random model runs on the real engine: what it says is nonsense, but always the same.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import run_nazx as nazx
from cli_helpers import tiny_checkpoint
from typer.testing import CliRunner

from nazx_cli.cli import app as app_module
from nazx_cli.cli.app import handled
from nazx_cli.errors import MemoryLimitError

BOOK = "The fox bought a lantern.\n\nThe heron bought a red umbrella.\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def book(tmp_path: Path) -> str:
    path = tmp_path / "book.txt"
    path.write_text(BOOK)
    return str(path)


def program(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "nazx_cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        **settings,  # type: ignore[call-overload]
    )


# Answers


def test_an_answer_goes_to_stdout_and_nothing_else_does(model: str) -> None:
    out, err, code = nazx("ask", "-m", model, "--max-tokens", "20", "Who are you?")
    assert code == 0
    assert out.strip() and out.endswith("\n")
    assert "Who are you?" not in out
    assert err == "(the answer was cut off; --max-tokens allows a longer one)\n"


def test_quiet_leaves_stderr_empty(model: str, book: str) -> None:
    out, err, code = nazx(
        "ask", "-m", model, "-f", book, "--max-tokens", "9", "--quiet", "--sources", "The heron?"
    )
    assert (err, code) == ("", 0)
    assert out.strip()


def test_verbose_gives_figures(model: str) -> None:
    _, err, _ = nazx("ask", "-m", model, "--max-tokens", "9", "--verbose", "Who?")
    for word in ("tokens in context", "bytes", "first token after", "tokens/s"):
        assert word in err


def test_the_same_seed_gives_the_same_answer(model: str) -> None:
    def answer(seed: str) -> str:
        more = ("--max-tokens", "30", "--temperature", "2", "--seed", seed)
        return nazx("ask", "-m", model, *more, "Who?")[0]

    assert answer("7") == answer("7")
    assert len({answer(seed) for seed in "123"}) > 1


def test_options_come_from_the_environment(model: str) -> None:
    typed = nazx("ask", "-m", model, "--max-tokens", "5", "-s", "Be brief.", "Who?")
    env = {"NAZX_MODEL": model, "NAZX_MAX_TOKENS": "5", "NAZX_SYSTEM": "Be brief."}
    assert nazx("ask", "Who?", env=env) == typed


@pytest.mark.parametrize("flag", ["--sources", "--no-sources", None])
def test_sources_are_named_on_stderr_where_wanted(model: str, book: str, flag: str | None) -> None:
    more = [flag] if flag else []
    out, err, code = nazx(
        "ask", "-m", model, "-f", book, "--max-tokens", "9", *more, "What did the heron buy?"
    )
    assert code == 0
    assert "sources:" not in out
    assert ("sources:\n  [1] " in err) == (flag == "--sources")
    if flag == "--sources":
        assert f"  [1] {Path(book).name}:1-3  “The fox bought a lantern." in err


def test_json_is_one_object_with_everything(model: str, book: str) -> None:
    out, err, code = nazx(
        "ask", "-m", model, "-f", book, "--max-tokens", "9", "--json", "What did the heron buy?"
    )
    assert (code, out.count("\n")) == (0, 1)
    data = json.loads(out)
    assert set(data) == {"answer", "thinking", "sources", "mode", "model", "finish", "stats"}
    assert (data["mode"], data["model"], data["finish"]) == ("recall", model, "length")
    assert data["sources"][0]["file"] == book
    assert data["sources"][0]["first_line"] == 1
    assert "red umbrella" in data["sources"][0]["text"]
    assert data["stats"]["generated"] == 9
    assert "sources:" not in err


def test_text_on_stdin_is_read_as_a_document(model: str, book: str) -> None:
    more = ("ask", "-m", model, "--max-tokens", "5", "--json")
    piped = json.loads(nazx(*more, "What did the heron buy?", stdin=BOOK)[0])
    assert [source["file"] for source in piped["sources"]] == ["stdin"]
    named = json.loads(nazx(*more, "-f", "-", "What did the heron buy?", stdin=BOOK)[0])
    assert named["sources"] == piped["sources"]
    both = json.loads(nazx(*more, "-f", book, "What about lantern?", stdin="A lantern, too.")[0])
    assert [source["file"] for source in both["sources"]] == ["stdin", book]


def test_the_length_of_piped_text_is_reckoned_with(model: str, book: str) -> None:
    more = ("vram-estimate", "-m", model, "--json", "--file")
    told = json.loads(nazx(*more, "-", stdin=BOOK)[0])
    assert told["tokens"] == json.loads(nazx(*more, book)[0])["tokens"] > 10


def test_stdin_alone_is_the_question(model: str) -> None:
    more = ("ask", "-m", model, "--max-tokens", "9")
    assert nazx(*more, stdin="Who?\n") == nazx(*more, "Who?")


def test_control_sequences_in_documents_do_not_reach_the_terminal(
    model: str, tmp_path: Path
) -> None:
    path = tmp_path / "evil.txt"
    steering = "\x1b]0;owned\x07The heron\x1b[31m bought \u202ea red umbrella.\n"
    path.write_text(steering + "It rained all day. " * 10)
    out, err, code = nazx(
        "ask", "-m", model, "-f", str(path), "--max-tokens", "9", "--sources", "The heron?"
    )
    assert code == 0
    assert "The heron" in err
    for text in (out, err):
        assert not any(bad in text for bad in ("\x1b", "\x07", "\u202e", "owned"))


# Chat without a terminal


def test_chat_answers_line_by_line_without_a_terminal(model: str) -> None:
    out, _, code = nazx(
        "chat", "-m", model, "--max-tokens", "9", "--json", stdin="First?\n\nSecond?\n"
    )
    assert code == 0
    first, second = (json.loads(line) for line in out.splitlines())
    assert (
        first["answer"]
        == json.loads(nazx("ask", "-m", model, "--max-tokens", "9", "--json", "First?")[0])[
            "answer"
        ]
    )
    assert second["stats"]["context_tokens"] > first["stats"]["context_tokens"]
    plain = nazx("chat", "-m", model, "--max-tokens", "9", stdin="First?\nSecond?\n")[0]
    assert [line.strip() for line in plain.splitlines()] == [first["answer"], second["answer"]]


def test_chat_goes_on_after_a_question_that_fails(model: str) -> None:
    out, err, code = nazx(
        "chat", "-m", model, "--max-tokens", "9", stdin=f"{'why ' * 400}\nSecond?\n"
    )
    assert code == 4
    assert out.strip()
    assert "error: the question has 1,599 tokens" in err


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "code", "cause"),
    [
        (["ask"], 2, "there is no question"),
        (["ask", "-f", "-"], 2, "there is no question"),
        (["ask", "-f", "-", "Who?"], 1, "standard input"),
        (["chat", "-f", "-"], 2, "reads questions from stdin"),
        (["ask", "-f", "/no/such/book.txt", "Who?"], 1, "/no/such/book.txt"),
        (["ask", "-m", "no-such-model", "Who?"], 5, "no-such-model"),
        (["ask", "-m", "/no/such/folder", "Who?"], 5, "/no/such/folder"),
        (["ask", "--temperature", "-1", "Who?"], 2, "temperature"),
        (["ask", "who", "is", "she"], 2, "quotes"),
    ],
)
def test_a_mistake_is_one_line_with_a_next_step(
    arguments: list[str], code: int, cause: str
) -> None:
    out, err, exit_code = nazx(*arguments)
    assert (out, exit_code) == ("", code)
    (line,) = err.splitlines()
    assert line.startswith("error: ") and cause in line and "; next: " in line


@pytest.mark.parametrize(
    "arguments",
    [["ask", "--no-such-option"], ["aks"], ["ask", "--max-tokens", "0", "x"]],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    out, err, code = nazx(*arguments)
    assert (out, code) == ("", 2)
    assert "--help" in err or "; next: " in err
    assert "Traceback" not in err


def test_a_question_of_millions_of_characters_is_refused_at_once() -> None:
    stdout, stderr, code = nazx("ask", "--model", "no-such-model", stdin="why? " * 500_000)
    assert (stdout, code) == ("", 2)
    assert "2,500,000 characters" in stderr
    assert "--file -" in stderr


def test_a_question_longer_than_the_window_is_exit_code_4(model: str) -> None:
    _, err, code = nazx("ask", "-m", model, "why " * 400)
    assert code == 4
    assert "1,599 tokens" in err and "1,024" in err


def test_a_read_mode_that_the_model_cannot_do_is_exit_code_2(model: str, book: str) -> None:
    _, err, code = nazx("ask", "-m", model, "-f", book, "--read", "resident", "Who?")
    assert code == 2
    assert err.startswith("error: ") and "--read recall" in err


def test_documents_are_read_before_the_model_is_loaded() -> None:
    _, err, code = nazx("ask", "-m", "no-such-model", "-f", "/no/such/book.txt", "Who?")
    assert code == 1
    assert "no-such-model" not in err


class TorchError(RuntimeError):
    pass


TorchError.__name__ = "OutOfMemoryError"  # as torch calls its own


@pytest.mark.parametrize(
    ("failure", "code", "line"),
    [
        (MemoryLimitError("too big", "take less"), 3, "error: too big; next: take less\n"),
        (MemoryError(), 3, "error: there is not enough memory"),
        (TorchError("CUDA out of memory"), 3, "error: there is not enough memory"),
        (KeyboardInterrupt(), 130, ""),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "9" * 300),
            2,
            f"error: {'9' * 40}… is too long",
        ),
        (ValueError("a\nbug"), 1, "internal error: ValueError: a bug (NAZX_DEBUG=1 shows the"),
    ],
)
def test_failures_become_exit_codes(
    failure: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body() -> None:
        raise failure

    def run() -> tuple[str, int]:
        program = app_module.typer.Typer()
        program.command()(handled(body))
        result = CliRunner().invoke(program, [])
        return result.stderr, result.exit_code

    err, exit_code = run()
    assert exit_code == code
    assert err.startswith(line)
    assert "Traceback" not in err
    monkeypatch.setenv("NAZX_DEBUG", "1")
    assert "Traceback" in run()[0]


# As a process


def test_a_reader_that_goes_away_ends_it_quietly(model: str) -> None:
    ask = f"{sys.executable} -m nazx_cli ask -m {model} --quiet --max-tokens 5000 'Who?'"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{ask} | head -c 5"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stderr, len(done.stdout), done.returncode) == ("", 5, 0)


def test_an_interrupt_keeps_what_was_said_and_names_the_sources(model: str, book: str) -> None:
    import signal

    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "nazx_cli", "ask", "-m", model, "-f", book, "--sources"),
            *("--max-tokens", "1000000", "What did the heron buy?"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    first = os.read(process.stdout.fileno(), 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert first.strip() and out.endswith(b"\n")
    assert b"sources:" in err and b"Traceback" not in err


def test_errors_of_the_process_are_exit_codes_too() -> None:
    done = program("ask", "-f", "/no/such/book.txt", "Who?", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (1, "")
    said, error = done.stderr.splitlines()
    assert said.startswith("starting") and error.startswith("error: ")
