"""Which models fit a machine, how fast they can be there, and ``nazx ls --all``, which tells."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import LLAMA, write_checkpoint
from cli_helpers import run_nazx as nazx
from pseudo_terminal import Terminal

from nazx_cli.catalog.registry import Registry
from nazx_cli.catalog.stored import converted_folder
from nazx_cli.memory import machine as machines
from nazx_cli.memory.choosing import LEAST_SPEED, better_model, fit, recommended, suggestions
from nazx_cli.memory.estimate import bytes_per_token
from nazx_cli.memory.machine import Hardware, this_machine
from nazx_cli.memory.plan import CPU_WORK, GPU_WORK, LEAST_READ, Machine

DEFAULT = "nazx-smol-135m"
READS = "qwen2.5-coder-1.5b"
READS_TOO = "qwen2.5-coder-0.5b"


def machine(free: float, bandwidth: float = 1e12, work: float = GPU_WORK) -> Hardware:
    place = Machine("bfloat16", int(free), can_quantize=True, work=work)
    return Hardware("cuda", "a GPU", bandwidth, place)


def names(*arguments: object, **options: bool) -> list[str]:
    return [offer.entry.name for offer in suggestions(*arguments, **options)]  # type: ignore[arg-type]


def test_less_memory_means_less_precise_weights_and_then_none() -> None:
    config = Registry.load().entries["nazx-smol-1.7b"].config
    found = [fit(config, machine(free, work=CPU_WORK)) for free in (8e9, 4e9, 2.5e9, 1e9)]
    assert [each.precision for each in found] == ["bfloat16", "int8", "nf4", "nf4"]
    assert [each.fits for each in found] == [True, True, True, False]
    readable = int(CPU_WORK / 2 / config.num_parameters)
    assert [each.context for each in found] == [readable, readable, readable, 0]
    assert found[0].speed < found[1].speed < found[2].speed
    assert fit(config, machine(8e9), limit=10**9).fits is False


def test_speed_is_bounded_by_the_weights_that_a_token_reads() -> None:
    entries = Registry.load().entries
    tied, untied = entries["nazx-smol-1.7b"].config, entries["nazx-1b"].config
    assert bytes_per_token(tied, "bfloat16") == 2 * tied.num_parameters
    embedding = 2 * (untied.vocab_size - 1) * untied.hidden_size
    assert bytes_per_token(untied, "bfloat16") == 2 * untied.num_parameters - embedding
    assert fit(tied, machine(80e9, bandwidth=2e10)).speed == pytest.approx(2e10 / 3.4228e9, 1e-3)


def test_suggestions_are_the_best_that_fits_one_between_and_the_default() -> None:
    best, between, last = names(machine(200e9))
    entries = Registry.load().entries
    assert last == DEFAULT
    assert entries[best].parameters > entries[between].parameters > entries[DEFAULT].parameters
    assert not entries[best].gated and entries[best].suggest
    ample = {entry.name for entry in entries.values() if entry.suggest and not entry.gated}
    assert entries[best].parameters == max(entries[name].parameters for name in ample)
    assert between == READS
    assert names(machine(200e9), hub=False) == [READS, READS_TOO, DEFAULT]
    assert names(machine(1e8)) == [DEFAULT]


def test_who_has_no_wish_gets_the_largest_reader_where_it_is_quick_else_the_default() -> None:
    for free, hub, wanted in ((200e9, True, READS), (200e9, False, READS), (1e8, True, DEFAULT)):
        quick = READS_TOO if wanted == READS else DEFAULT
        for operations, chosen in (
            (math.inf, wanted),
            (2e11, wanted),
            (4e10, quick),
            (1e9, DEFAULT),
        ):
            place = replace(machine(free), operations=operations)
            offers = suggestions(place, hub=hub)
            assert offers[recommended(place, offers)].entry.name == chosen


def test_a_model_that_is_too_slow_is_not_suggested_and_a_gated_one_needs_a_token() -> None:
    slow = machine(200e9, bandwidth=8e9)
    assert all(offer.fit.speed >= LEAST_SPEED for offer in suggestions(slow)[:-1])
    assert names(slow)[0] != names(machine(200e9))[0]
    gated = {entry.name for entry in Registry.load().entries.values() if entry.gated}
    assert gated and not gated & set(names(machine(9e9)))
    small = [names(machine(free), gated=True) for free in (4e9, 9e9, 2e10)]
    assert gated & {name for each in small for name in each}


def test_a_model_that_takes_minutes_to_read_a_prompt_on_a_processor_is_not_suggested() -> None:
    """qwen3-4b used to be offered first on two cores: 1.6e13 operations before the first word."""
    entries = Registry.load().entries
    found = names(machine(200e9, work=CPU_WORK))
    assert found == [READS, READS_TOO, DEFAULT]
    most = CPU_WORK / LEAST_READ / 2
    assert entries[READS].parameters < most < entries["granite-3.3-2b"].parameters
    assert READS in str(better_model(DEFAULT, machine=machine(200e9, work=CPU_WORK)))


def test_advice_names_a_larger_model_only_where_it_fits() -> None:
    best = names(machine(200e9))[0]
    assert f"nazx pull {best}" in str(better_model(DEFAULT, machine=machine(200e9)))
    assert better_model(DEFAULT, 10**8, machine(200e9)) is None
    assert better_model(best, machine=machine(200e9)) is None
    assert better_model("some/repo") is None
    write_checkpoint(converted_folder(best), LLAMA)
    assert f"nazx chat -m {best}" in str(better_model(DEFAULT, machine=machine(200e9)))


def test_copies_that_tell_the_speed_of_memory_are_short_as_other_programs_take_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a busy machine a copy of the whole buffer was never left alone: 5 of 22 GB a second."""
    copied, copy = [], np.copyto

    def recording(target: np.ndarray, source: np.ndarray) -> None:
        copied.append(target.nbytes)
        copy(target, source)

    monkeypatch.setattr(np, "copyto", recording)
    monkeypatch.setattr(machines, "usable_cores", lambda: 3)
    assert machines._measure_cpu() > 1e8
    assert 1 << 22 < max(copied) < 1 << 23  # of three threads at once
    assert sum(copied) >= 1 << 27 and len(copied) % 24 == 0  # all of the buffer: beyond caches


def test_the_speed_of_memory_is_measured_once_a_day_and_the_best_stands(
    isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = this_machine()
    assert first.bandwidth > 1e8 and first.place.free > 0
    monkeypatch.setattr(machines, "_measure_cpu", lambda: pytest.fail("measured again"))
    assert this_machine().bandwidth == pytest.approx(first.bandwidth)
    file = isolated_home / "speeds.json"
    for measured, stands in ((2 * first.bandwidth, 2), (first.bandwidth, 2)):
        kept = json.loads(file.read_text())
        file.write_text(json.dumps({k: v | {"day": "2020-02-02"} for k, v in kept.items()}))
        monkeypatch.setattr(machines, "_measure_cpu", lambda measured=measured: measured)
        assert this_machine().bandwidth == pytest.approx(stands * first.bandwidth)
    monkeypatch.setattr(machines, "_measure_cpu", lambda: 1e14)
    assert this_machine().bandwidth == pytest.approx(2 * first.bandwidth)
    file.write_text("{damaged")
    monkeypatch.setattr(machines, "_measure_cpu", lambda: 1e9)
    assert this_machine().bandwidth == 1e9


@pytest.mark.skipif(sys.platform == "darwin", reason="it may have Apple's GPU")
def test_how_fast_a_processor_multiplies_is_kept_too(
    isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = machines._measure_products()
    assert 1e8 < measured < 1e15
    monkeypatch.setattr(machines, "_measure_products", lambda: measured)
    monkeypatch.setattr(machines, "multiplies_bfloat16", lambda: False)
    assert this_machine().operations == pytest.approx(measured)
    monkeypatch.setattr(machines, "_measure_products", lambda: pytest.fail("measured again"))
    monkeypatch.setattr(machines, "multiplies_bfloat16", lambda: True)  # two at once
    found = this_machine()
    assert found.operations == pytest.approx(2 * measured)
    assert found.bandwidth != pytest.approx(measured)


def test_a_card_counts_where_torch_can_use_it(
    tmp_path: Path, isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the driver's own tool says, played by a script; its memory's speed is known already."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 3060, 11264, 8.6'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(machines, "_torch_knows_cuda", lambda: True)
    monkeypatch.setattr(machines, "_measure_cuda", lambda: None)  # torch cannot use it
    assert this_machine().device != "cuda"
    monkeypatch.setattr(machines, "_measure_cuda", lambda: 3.4e11)
    found = this_machine()
    assert (found.device, found.name, found.bandwidth) == (
        "cuda",
        "NVIDIA GeForce RTX 3060",
        3.4e11,
    )
    assert (found.place.dtype, found.place.free, found.place.held) == ("bfloat16", 11 << 30, 0)
    for shown, asked in (("1,0", "--id=1"), ("GPU-8a", "--id=GPU-8a"), ("MIG-3", "--query")):
        tool.write_text(
            f"#!/bin/sh\ncase $1 in {asked}*) echo 'Card {shown}, 11264, 8.6';; *) exit 1;; esac\n"
        )
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        assert this_machine().name == f"Card {shown}"
    monkeypatch.setattr(machines, "_measure_cuda", lambda: None)  # whatever it was once
    speeds = isolated_home / "speeds.json"
    kept = json.loads(speeds.read_text())
    speeds.write_text(json.dumps({k: v | {"day": "2020-02-02"} for k, v in kept.items()}))
    assert this_machine().device != "cuda"
    monkeypatch.setattr(machines, "_measure_cuda", lambda: 3.4e11)
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert this_machine().device != "cuda"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool.write_text("#!/bin/sh\necho 'No devices were found'\n")
    assert this_machine().device != "cuda"


def test_ls_all_tells_for_this_machine_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {each["name"]: each for each in json.loads(nazx("ls", "--all", "--json")[0])}
    assert told.keys() == Registry.load().entries.keys()
    small = told[DEFAULT]
    assert small["fit"]["fits"] and small["fit"]["context_tokens"] == 2052
    assert small["fit"]["most_tokens_per_second"] > 0
    assert small["licence"] and small["download_bytes"] and small["context_length"] == 8192
    limited = json.loads(nazx("ls", "--all", "--json", "--vram-limit", "1.2GB")[0])
    fitting = {each["name"] for each in limited if each["fit"]["fits"]}
    assert DEFAULT in fitting and "nazx-2.8b" not in fitting
    assert {each["fit"]["limit_bytes"] for each in limited} == {1_200_000_000}
    out, err, _ = nazx("ls", "--all", "--vram-limit", "1.2GB")
    assert nazx("ls", "--vram-limit", "1.2GB")[0] == out
    assert "nazx-2.8b" in out and "1.20 GB" in err


@pytest.mark.parametrize(
    ("columns", "headings"),
    [(40, "NAME +FITS AS +UP TO$"), (80, "NAME +FITS AS +UP TO +CONTEXT +DOWNLOAD +LICENCE$")],
)
def test_ls_all_is_a_table_in_a_narrow_terminal_too(columns: int, headings: str) -> None:
    # Whatever memory there is now: what does not fit takes more words.
    terminal = Terminal("ls", "--all", "--vram-limit", "64GB", columns=columns, rows=60)
    assert terminal.end() == 0
    terminal.until(f"^{headings}")
