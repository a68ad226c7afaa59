"""A chat that goes on takes no more and more memory, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import tiny_checkpoint

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")

CHAT = """
import sys
from nazx_cli.engine.language_model import load_model
from nazx_cli.memory.probe import resident_bytes
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings

chat = Session(load_model(sys.argv[1], dtype="bfloat16"), None, SessionSettings(max_tokens=3))
for turn in range(121):
    for event in chat.ask(f"What is number {turn} doing in the forest of {turn * 7 % 13}?"):
        pass
    if turn == 20:
        before = resident_bytes()
print(resident_bytes() - before)
"""


def test_a_hundred_turns_of_a_chat_take_little_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHAT, str(tiny_checkpoint(tmp_path / "model"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40_000_000
