"""What ``nazx bench`` measures of several processes, at tiny sizes."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from bench_helpers import TINY
from checkpoints import GPT_NEOX
from cli_helpers import tiny_checkpoint

from nazx_cli.bench.processes import ranks
from nazx_cli.bench.results import Row
from nazx_cli.bench.setup import Settings, Setup
from nazx_cli.catalog.registry import Registry
from nazx_cli.config import ModelConfig

TIMES = [
    f"{which} token{what}"
    for which in ("first", "further")
    for what in ("", ", processor time of the busiest")
]
BYTES = ", bytes to and from the first"
HELD = ["context of a process at most", "peak of a process at most"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(Registry, "find", lambda registry, name: TINY)
    model = str(tiny_checkpoint(tmp_path / "tiny", window=512))
    return replace(Settings(model=model, contexts=(2000,), dtype="float32").quick(), block=256)


def of(rows: list[Row], measure: str) -> Row:
    (found,) = (row for row in rows if row.measure == f"{measure}, 2 processes")
    return found


@pytest.mark.slow
def test_a_prompt_in_blocks_is_measured_beside_one_process(settings: Settings) -> None:
    rows = list(islice(ranks.blocks(Setup(settings)), 14))  # those of random weights are left out
    assert {row.note for row in rows} == {settings.model}
    alone = [row.measure for row in rows if row.measure.endswith(", one process")]
    assert alone == [f"{measure}, one process" for measure in (*TIMES, *HELD)]
    for measure in (*TIMES, *HELD):
        row = of(rows, measure)
        assert (row.tokens, row.peer, row.layout) == (2000, "one process", "")
        assert row.theirs is not None and row.ours.low > 0 and row.theirs.low > 0
    held = of(rows, HELD[0]).ratio
    assert held is not None and held > 1.3
    # The last block asks: in all but the last of two layers all of it, for 4 heads of 8.
    gathered = (2000 - 7 * 256 + 1) * 4 * (8 + 1) * 4 * 2
    prompt, token = (of(rows, f"{each} token{BYTES}") for each in ("first", "further"))
    counted = prompt.details["counted_bytes"]
    assert gathered < counted < gathered + 2000 * 4 + 1000  # and the ids
    assert counted < prompt.ours.median < 1.2 * counted
    assert 0 < token.ours.median < counted / 10


@pytest.mark.slow
def test_split_weights_are_measured_where_heads_divide(settings: Settings) -> None:
    rows = list(ranks.split(Setup(settings)))  # the random shapes fuse matrices
    assert {row.note for row in rows} == {settings.model}
    whole, part = (row.details["weights_bytes"] for row in rows if row.measure.startswith("peak"))
    assert whole * 0.5 <= part < whole * 0.6
    assert of(rows, f"further token{BYTES}").ours.median > 0


def test_the_numbers_of_processes_are_those_that_divide_the_heads() -> None:
    config = Registry.load().find("nazx-smol-135m")
    assert config is not None
    assert ranks._divide(config.config, (1, 2)) == ()
    assert ranks._divide(config.config, range(1, 9))[:2] == (1, 3)
    assert ranks._divide(ModelConfig.from_dict(GPT_NEOX), (1, 2)) == ()
