"""A chat that goes on takes no more and more memory, measured in a process of its own."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import tiny_checkpoint

from nazx_cli.engine.language_model import load_model
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings

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


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_hundred_turns_of_a_chat_take_little_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHAT, str(tiny_checkpoint(tmp_path / "model"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8_000_000


def test_what_a_turn_leaves_behind_is_freed_at_once(tmp_path: Path) -> None:
    """The collector of circles comes by seldom: hundreds of turns may wait for it."""
    lm = load_model(tiny_checkpoint(tmp_path / "model"))
    chat = Session(lm, None, SessionSettings(max_tokens=2, ctx=400))

    def ask(turns: range) -> None:
        for turn in turns:
            for _ in chat.ask(f"What is number {turn} doing in the forest?"):
                pass

    ask(range(8))
    assert chat.state.history.left_out
    gc.collect()
    gc.disable()
    try:
        ask(range(8, 16))
        assert gc.collect() == 0
    finally:
        gc.enable()
