"""The process's streams: closed, full, without a reader; what is printed on them; Ctrl-C."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cli_helpers import make_tokenizer, run_nazx

from nazx_cli.ui.terminal.interrupts import importing, interruptible
from nazx_cli.ui.terminal.screen import Bar, Screen
from nazx_cli.ui.terminal.streams import OutputError, gated

HOSTILE = "a\x1b[31mb\x9bc\x07d\u202ee\u2066f\x85"
RAW = ("\x1b", "\x9b", "\x07", "\u202e", "\u2066", "\x85")


def shell(command: str) -> tuple[str, str, int]:
    """A command of bash in which ``nazx`` is the program."""
    done = subprocess.run(
        ["bash", "-c", command.replace("nazx", f"{sys.executable} -m nazx_cli")],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout, done.stderr, done.returncode


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    ("command", "code", "err"),
    [
        ("nazx help >&-", 1, "error: cannot write to stdout: Bad file descriptor"),
        ("nazx --version >&-", 1, "error: cannot write to stdout"),
        ("nazx help >/dev/full", 1, "error: cannot write to stdout: No space left on device"),
        ("nazx --help >/dev/full", 1, "error: cannot write to stdout"),
        ("nazx --help | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("nazx help 2>&-", 0, ""),
        ("nazx help nonsense 2>/dev/full", 2, ""),
        ("nazx help nonsense >&- 2>&- <&-", 2, ""),
    ],
)
def test_a_stream_that_is_closed_or_full_is_one_line_and_the_right_code(
    command: str, code: int, err: str
) -> None:
    _, said, exit_code = shell(command)
    assert exit_code == code
    assert said.startswith(err) and said.count("\n") <= 1


def test_nothing_raw_passes_the_gate() -> None:
    out = io.StringIO()
    print(HOSTILE, file=gated(out))
    assert out.getvalue() == "abdef\n"
    assert gated(gated(out)) is not out


def test_a_gate_that_has_failed_goes_on_failing_and_a_lossy_one_never_does() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    gate = gated(Full())
    for _ in range(2):
        with pytest.raises(OutputError, match="No space"):
            gate.write("x")
    gated(Full(), lossy=True).write("x")


def test_json_says_exactly_what_it_holds_and_prints_nothing_raw() -> None:
    class Utf8(io.StringIO):
        encoding = "utf-8"

    out = Utf8()
    Screen(out, io.StringIO()).data({"text": HOSTILE + "é\udcff"})
    assert json.loads(out.getvalue()) == {"text": HOSTILE + "é\udcff"}
    assert not any(character in out.getvalue() for character in (*RAW, "\udcff"))
    assert "é" in out.getvalue()


def test_a_progress_bar_shows_a_path_without_its_control_characters() -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Tty()
    with Bar(out, f"loading {HOSTILE}") as bar:
        bar.start()
        bar.update(HOSTILE, 1, 2)
    assert "loading abdef" in out.getvalue()
    assert not any(character in out.getvalue() for character in RAW[1:])
    assert "\x1b[31m" not in out.getvalue()


def test_hostile_words_of_the_command_line_are_shown_harmlessly() -> None:
    out, err, code = shell(r"""nazx ls $'--\x1b[31m\xc2\x9b\xe2\x80\xae\xff'""")
    assert (out, code) == ("", 2) and "No such option" in err
    assert not any(character in err for character in RAW)


def test_bytes_that_are_no_text_can_be_tokenized() -> None:
    tokenizer = make_tokenizer()
    expected = tokenizer.encode("a�b")
    assert tokenizer.encode("a\udcffb") == expected
    assert tokenizer.encode_markup("a\udcffb") == expected
    assert tokenizer.encode_document("a\udcffb").ids.tolist() == expected


@pytest.mark.parametrize("wait", [0.0, 0.1, 0.3])
def test_ctrl_c_right_after_the_start_leaves_no_trace(wait: float) -> None:
    # Before our first line runs, Python itself would show a traceback: wait for that one.
    code = (
        "import os, sys, nazx_cli.__main__ as program; os.write(1, b'x');"
        "sys.argv = ['nazx', 'gauge', '--watch', '--device', 'cpu']; program.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    os.read(process.stdout.fileno(), 1)
    time.sleep(wait)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, 0)  # 0 where it had come to watch already
    assert err == b""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["ask", "Who?"], True),
        (["ask", "Who?", "--quiet"], False),
        (["train", "data", "--out", "run"], True),
        (["tune", "data", "--out", "run"], True),
    ],
)
def test_the_start_is_told_before_anything_heavy_and_ctrl_c_ends_it(
    command: list[str], said: bool
) -> None:
    # As libraries do: the interrupt comes while one is imported, and is made another error.
    code = f"""
import signal, sys, nazx_cli.__main__ as program
class Swallowing:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise ImportError(name) from None
sys.meta_path.insert(0, Swallowing())
sys.argv = ["nazx", *{command!r}]
program.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == ("starting: loading PyTorch\n" if said else "")


def test_an_interrupt_that_a_library_swallows_is_raised_after_all() -> None:
    with pytest.raises(KeyboardInterrupt), importing(), suppress(BaseException):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), importing():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError from None


def test_an_interrupt_in_a_finalizer_is_raised_after_all() -> None:
    class Finalized:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), interruptible():
        Finalized()
        gc.collect()
        time.sleep(5)


def test_version_and_errors_come_through_unchanged() -> None:
    out, err, code = run_nazx("help", "nonsense")
    assert (out, code) == ("", 2) and err.startswith("error: there is no topic 'nonsense'")
