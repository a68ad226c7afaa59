"""The benchmark of folders taken in by the index, at a tiny size."""

from __future__ import annotations

from pathlib import Path

from cli_helpers import tiny_checkpoint

from nazx_cli.bench.setup import Settings, Setup
from nazx_cli.bench.workloads import WORKLOADS


def test_every_start_and_question_is_timed_and_sized(tmp_path: Path, alice: str) -> None:
    folder = tmp_path / "books"
    folder.mkdir()
    for number in range(3):
        text = alice[number * 9000 :][:9000] if number < 2 else alice[:9000]
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    model = str(tiny_checkpoint(tmp_path / "tiny", window=96))
    settings = Settings(model=model, repeat=2, files=(str(folder),))
    rows = list(WORKLOADS["folders"].run(Setup(settings)))
    assert [row.measure.split(",")[0] for row in rows] == [
        *("first start", "later start", "start with one more file"),
        *("question ranked", "question ranked again"),
    ]
    for row in rows:
        assert row.details["documents"] == 2 and row.details["copies"] == 1
        assert row.tokens > 10_000 and row.details["index_bytes"] > 18_000
    assert len(rows[1].ours.runs) == 2 and len(rows[3].ours.runs) == 5
