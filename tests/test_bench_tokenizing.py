"""The tokenizing benchmark at a tiny size."""

from __future__ import annotations

from pathlib import Path

from cli_helpers import tiny_checkpoint

from nazx_cli.bench.setup import Settings, Setup
from nazx_cli.bench.workloads import WORKLOADS


def test_tokens_are_those_of_the_plain_call_and_both_are_timed(tmp_path: Path, alice: str) -> None:
    book = tmp_path / "book.txt"
    book.write_text(alice[:20_000], encoding="utf-8")
    model = str(tiny_checkpoint(tmp_path / "tiny", window=96))
    settings = Settings(model=model, repeat=3, files=(str(book),))
    whole, edit = WORKLOADS["tokenizing"].run(Setup(settings))
    for row in (whole, edit):
        assert row.details == {"characters": 20_000, "tokens_that_differ": 0}
        assert row.theirs is not None
        assert len(row.ours.runs) == len(row.theirs.runs) == 3
        assert row.tokens > 1000
    assert edit.ours.median < whole.ours.median
