"""What a document takes by the byte: read, tokenized, indexed and searched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MOST = 20  # bytes for each byte of text; this tokenizer makes a token of every one
MEBIBYTE = 1 << 20

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from cli_helpers import make_tokenizer
from nazx_cli.documents.gather import gather
from nazx_cli.reading.library import Library
from nazx_cli.reading.recall import rank

tokenizer = make_tokenizer()

def peak():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

def use(path):
    library = Library.build(gather([path]).documents, tokenizer)
    rank(library, "Where is the castle, and what is \\u6f22?")
    return library.passages[0]

use(sys.argv[2])
before = peak()
use(sys.argv[3])
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("unit", ["漢", "word ", "a", "漢字とword "], ids=ascii)
def test_a_document_takes_at_most_twenty_bytes_a_byte(unit: str, tmp_path: Path) -> None:
    small, large = tmp_path / "small.txt", tmp_path / "large.txt"
    small.write_text("A small text about a word.\n" * 60_000, encoding="utf-8")
    size = 32 * MEBIBYTE
    large.write_text(unit * (size // len(unit.encode())), encoding="utf-8")
    tests = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tests, str(small), str(large)],
        capture_output=True,
        text=True,
        check=True,
        timeout=500,
    )
    assert int(done.stdout) <= MOST * size
