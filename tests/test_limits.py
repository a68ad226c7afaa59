"""A limit on memory is kept by the whole process: real chats, by what the system says they took."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import tiny_checkpoint

from nazx_cli.names import DEFAULT_MODEL

STATUS = Path("/proc/self/status")
pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="asks the system for the peak")
# A child's ru_maxrss begins with that of the process that it was forked from; this does not.
NAZX_AND_PEAK = f"""
import atexit, re, runpy, sys
from pathlib import Path
path = Path(sys.argv.pop(1))
def tell():
    path.write_text(re.search(r"VmHWM:\\s+(\\d+) kB", Path("{STATUS}").read_text())[1])
atexit.register(tell)
runpy.run_module("nazx_cli", run_name="__main__", alter_sys=True)
"""
KINDS, COPIES = ("windowed", "full", "inattention"), (0, 1, 8)


def chat(model: str, told: Path, limit: str, *documents: Path) -> tuple[int, str, int]:
    """A chat of two questions: its exit code, what it said on stderr, its peak in bytes, which it
    leaves in the file ``told``."""
    files = [part for path in documents for part in ("--file", str(path))]
    command = [sys.executable, "-c", NAZX_AND_PEAK, str(told), "chat", "-m", model]
    process = subprocess.Popen(
        [*command, "--max-tokens", "8", "--device", "cpu", "--vram-limit", limit, *files],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stderr is not None
    try:
        process.stdin.write("Who is asleep?\nWhat did she say?\n")
        process.stdin.close()
    except BrokenPipeError:  # it was refused
        pass
    err = process.stderr.read()
    return process.wait(), err, int(told.read_text()) * 1024


def check(model: str, scratch: Path, text: str, copies: int) -> None:
    documents, told = [], scratch / "peak"
    if copies:
        book = scratch / "book.txt"
        book.write_text(text * copies, encoding="utf-8")
        documents = [book]
    code, err, _ = chat(model, told, "60MB", *documents)
    assert code == 3, err
    found = re.search(r"--vram-limit (\d+)MB", err)
    assert found is not None, err
    smallest = int(found[1])
    for limit in (smallest, 2 * smallest):
        code, err, peak = chat(model, told, f"{limit}MB", *documents)
        assert code == 0, err
        assert peak <= limit * 10**6
    assert peak >= 0.6 * smallest * 10**6  # no limit is far more than is needed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("windowed",))
def test_what_is_refused_says_the_limit_that_works(kind: str, tmp_path: Path, alice: str) -> None:
    model = tiny_checkpoint(tmp_path / "model", kind=kind)
    check(str(model), tmp_path, alice[:40_000], 1)


@pytest.mark.slow
@pytest.mark.parametrize("copies", COPIES)
@pytest.mark.parametrize("kind", KINDS)
def test_limits_hold_for_models_and_documents(
    kind: str, copies: int, tmp_path: Path, alice: str
) -> None:
    """Two limits for each: with the test above, 20 combinations."""
    check(str(tiny_checkpoint(tmp_path / "model", kind=kind)), tmp_path, alice, copies)


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("copies", COPIES)
def test_limits_hold_for_the_default_model(copies: int, tmp_path: Path, alice: str) -> None:
    check(DEFAULT_MODEL, tmp_path, alice, copies)
