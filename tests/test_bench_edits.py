"""The workload ``edits``, small."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nazx_cli.bench import setup
from nazx_cli.bench.models import inattention_config
from nazx_cli.bench.setup import Settings, Setup
from nazx_cli.bench.workloads import WORKLOADS


def test_edits_are_measured_with_the_first_token_after_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(
        inattention_config("nazx-70m"),
        num_layers=1,
        hidden_size=32,
        num_heads=2,
        num_kv_heads=2,
        intermediate_size=32,
        vocab_size=300,
    )
    monkeypatch.setattr(setup, "inattention_config", lambda name: config)
    told: list[str] = []
    settings = Settings(repeat=2, contexts=(800,), layouts=("ids", "tables"), dtype="float32")
    rows = list(WORKLOADS["edits"].run(Setup(settings, told.append)))
    for layout in ("ids", "tables"):
        measures = [row.measure for row in rows if row.layout == layout]
        for edit in ("/drop", "/swap", "/move", "/undo", "/fork", "/switch"):
            assert edit in measures
            assert f"first token after {edit}" in measures
    for row in rows:
        assert (row.tokens, row.unit, len(row.ours.runs)) == (800, "s", 2)
        assert (row.theirs is not None) == row.measure.startswith("first token")
    assert told
