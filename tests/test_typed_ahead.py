"""What is typed while a bar is drawn, in a real terminal."""

from __future__ import annotations

import sys

import pytest

pexpect = pytest.importorskip("pexpect")

_TYPED_AHEAD = """
import sys, time
from nazx_cli.ui.terminal.screen import Screen
with Screen(sys.stdout, sys.stderr).bar("reading") as bar:
    bar.update(1, 2)
    time.sleep(1.5)
print("read")
print("asked:", input(), input())
"""
_IN_BACKGROUND = """
import os
child = os.fork()
if not child:
    os.setpgid(0, 0)
    from nazx_cli.ui.terminal.screen import no_echo
    with no_echo():
        os._exit(0)
state = os.waitpid(child, os.WUNTRACED)[1]
print("stopped" if os.WIFSTOPPED(state) else "went on")
"""


def test_what_is_typed_while_documents_are_read_is_kept_but_not_shown() -> None:
    process = pexpect.spawn(sys.executable, ["-c", _TYPED_AHEAD], encoding="utf-8", timeout=30)
    process.expect("reading")
    process.send("Who?\nWhy?\n")
    process.expect("read\r\n")
    assert "W" not in process.before
    process.expect(r"asked: Who\? Why\?")
    process.expect(pexpect.EOF)


def test_a_job_in_the_background_is_not_stopped_for_its_terminal() -> None:
    process = pexpect.spawn(sys.executable, ["-c", _IN_BACKGROUND], encoding="utf-8", timeout=30)
    assert "went on" in process.read()
