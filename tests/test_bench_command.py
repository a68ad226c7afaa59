"""``nazx bench``: what it runs, the report that it leaves, and how it compares times."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bench_helpers import TINY, bench
from cli_helpers import tiny_checkpoint

from nazx_cli.bench import growth, results, workloads
from nazx_cli.bench.processes import memory
from nazx_cli.bench.results import Environment, Report, Row, Spread
from nazx_cli.bench.setup import Settings, Setup
from nazx_cli.catalog.registry import Registry
from nazx_cli.errors import NazxError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny", window=512))


@pytest.fixture
def tiny_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "find", lambda registry, name: TINY)


# The command


def test_unknown_shapes_name_those_that_there_are() -> None:
    _, err = bench("attention", "--shapes", "nazx-2b", code=2)
    assert "no model is called 'nazx-2b'" in err
    assert "nazx-160m" in err


def test_an_unknown_workload_names_those_that_there_are() -> None:
    _, err = bench("prefil", code=2)
    assert "'prefil'" in err
    for name in workloads.WORKLOADS:
        assert name in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    (
        (("read",), 2, "needs a document"),
        (("read", "-f", "no-such-book.txt"), 1, "no file no-such-book.txt"),
        (("memory", "--layout", "piles"), 2, "is not one of 'auto', "),
        (("memory", "--output", "no-such-folder/bench.json"), 2, "cannot be written"),
        (("memory", "--output", "/dev/null"), 2, "cannot be written"),
    ),
)
def test_mistakes_are_told_before_anything_is_measured(
    arguments: tuple[str, ...], code: int, said: str
) -> None:
    out, err = bench(*arguments, code=code)
    assert out == ""
    assert said in err


def test_what_takes_long_runs_only_when_named_or_all_are_wanted() -> None:
    def names(settings: Settings, *named: str, every: bool = False) -> list[str]:
        chosen = workloads.choose(named, settings, every=every)
        return [workload.name for workload in chosen]

    assert names(Settings()) == ["prefill", "decode", "memory", "peak"]
    with_files = names(Settings(files=(__file__,)))
    assert with_files[:4] == names(Settings())
    assert {"read", "quantization"} <= set(with_files)
    assert names(Settings(), "growth") == ["growth"]
    everything = names(Settings(files=(__file__,)), every=True)
    assert set(everything) == set(workloads.WORKLOADS) - {"recall"}


def test_quick_settings_are_small_and_keep_what_was_asked_for() -> None:
    quick = Settings(repeat=1, contexts=(50,), model="some").quick()
    assert (quick.repeat, quick.contexts, quick.model) == (1, (50,), "some")
    assert max(quick.peer_lengths) < 1000


def test_a_quick_run_chooses_all_but_what_needs_data_of_its_own_and_says_so() -> None:
    chosen = workloads.choose((), Settings().quick(), every=True)
    assert {workload.name for workload in chosen} == set(workloads.WORKLOADS) - {"recall"}
    assert workloads.left_out(chosen).endswith(", recall")


def test_a_quick_run_starts_no_process_for_what_a_context_holds(tiny_shapes: None) -> None:
    (row,) = memory.memory(Setup(Settings().quick()))
    assert row.measure == "bytes held"


@pytest.mark.slow
def test_a_quick_run_has_every_benchmark_in_its_figures(model: str, tiny_shapes: None) -> None:
    out, err = bench("--quick", "-m", model, "--json", "--repeat", "1")
    report = json.loads(out)
    assert report["complete"] is True
    assert {row["workload"] for row in report["rows"]} == set(workloads.WORKLOADS) - {"recall"}
    assert "quick: left out are" in err


@pytest.mark.slow
def test_a_server_is_measured_with_one_client_and_with_many(model: str) -> None:
    measures = ("time per request", "processor time per request", "first token")
    out, _ = bench("serve", "-m", model, "--quick", "--json")
    rows = json.loads(out)["rows"]
    assert [row["measure"] for row in rows] == [
        *(f"{measure}, 1 client" for measure in measures),
        *(f"{measure}, 8 clients" for measure in measures),
        "peak memory of the server",
    ]
    assert all(row["ours"]["median"] > 0 and row["details"]["our_failed"] == 0 for row in rows)
    assert 0 < rows[-1]["ours"]["median"] < rows[-1]["details"]["limit_bytes"]
    assert all(row["theirs"] is None and row["note"] for row in rows)  # of no file for it


def test_answers_with_and_without_drafts_are_timed_side_by_side(model: str) -> None:
    alice = str(Path(__file__).parent / "data" / "alice.txt")
    out, _ = bench("drafts", "-m", model, "-f", alice, "--quick", "--json")
    rows = json.loads(out)["rows"]
    assert [row["measure"] for row in rows] == ["a quote", "a summary", "a story"]
    for row in rows:
        assert row["peer"] == "without drafts" and row["details"]["tokens per run"] >= 1
        assert row["details"]["answers alike"] == (1 if row["measure"] == "a story" else 4)


def test_the_table_shows_environment_and_ratio(tiny_shapes: None, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    before = torch.get_num_threads()
    out, err = bench("memory", "--ctx", "2000", "--layout", "postings", "--output", str(file))
    assert torch.get_num_threads() == before
    report = json.loads(file.read_text())
    environment = report["environment"]
    assert environment["threads"] == 1
    assert environment["versions"]["torch"] == torch.__version__
    assert f"cpu: {environment['cpu']}" in out
    (row,) = report["rows"]
    assert f"{row['ratio']:.2f}" in out
    assert "dense cache" in out
    assert "memory: 2,000 tokens" in err
    assert list(tmp_path.iterdir()) == [file]


def test_an_interrupt_keeps_the_rows_that_are_done(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(setup: Setup) -> Iterator[Row]:
        yield Row("decode", "time per token", 5, "s", "float32", Spread((0.5,)))
        raise KeyboardInterrupt

    cut = workloads.Workload("decode", "", broken_off)
    monkeypatch.setitem(workloads.WORKLOADS, "decode", cut)
    out, err = bench("decode", "-m", model, "--json", code=130)
    report = json.loads(out)
    assert report["complete"] is False
    assert [row["ours"]["median"] for row in report["rows"]] == [0.5]
    assert "interrupted" in err


def test_an_error_keeps_the_rows_that_are_done(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(setup: Setup) -> Iterator[Row]:
        yield Row("decode", "time per token", 5, "s", "float32", Spread((0.5,)))
        raise NazxError("the peer gave up", "try again")

    monkeypatch.setitem(workloads.WORKLOADS, "decode", workloads.Workload("decode", "", broken))
    file = tmp_path / "bench.json"
    _, err = bench("decode", "-m", model, "--output", str(file), code=1)
    report = json.loads(file.read_text())
    assert report["complete"] is False
    assert len(report["rows"]) == 1
    assert "the peer gave up" in err


def test_a_report_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bench.json"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(NazxError, match=r"cannot write .*No space left"):
        results.write_report(Report(Environment.current("float32"), []), target)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


# Timing


def test_sides_take_turns_in_both_orders() -> None:
    calls: list[str] = []

    def side(name: str, seconds: float) -> results.Side:
        def one() -> float:
            calls.append(name)
            return seconds + len(calls)

        return one

    runs = results.alternate([side("a", 0.0), side("b", 100.0)], 2)
    assert "".join(calls) == "ab" + "ab" + "ba"
    assert runs == [(3.0, 6.0), (104.0, 105.0)]


def test_the_paired_ratio_is_taken_round_by_round() -> None:
    assert results.paired_ratio((1.0, 2.0, 4.0), (2.0, 6.0, 4.0)) == 2.0
    assert results.paired_ratio((1.0,), (2.0, 3.0)) is None
    assert results.paired_ratio((1.0, 0.0), (2.0, 3.0)) is None


def test_the_exponent_is_the_slope_on_log_log_paper() -> None:
    assert growth.exponent([(10, 3.0), (100, 30.0), (1000, 300.0)]) == pytest.approx(1.0)
    assert growth.exponent([(2, 5.0), (4, 20.0)]) == pytest.approx(2.0)
