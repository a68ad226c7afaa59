"""A short run of the fuzz suite: the first cases of every target keep the law.

``python -m tests.fuzz`` is the long one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
from fuzz import TARGETS
from fuzz.bench import Bench
from fuzz.law import Case, Outcome, check
from fuzz.running import tried

CASES = 6
FEWER = {"tokenizer": 2, "templates": 2, "hub": 2, "options": 4, "slash": 1}  # they take seconds
SEED = 1


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("fuzz")) as bench:
        yield bench


@pytest.fixture(scope="module")
def sound(bench: Bench) -> Outcome:
    """What comes of a case that keeps the law."""
    return bench.run(Case("version", ("--version",)))


@pytest.mark.parametrize("target", TARGETS)
def test_the_first_cases_of_a_target_keep_the_law(bench: Bench, target: str) -> None:
    faults = [
        f"{found.case.name}: {found.fault}; run again by: {found.again}"
        for found in islice(tried(bench, target, SEED), FEWER.get(target, CASES))
        if found.fault
    ]
    assert not faults, "\n".join(faults)


def test_a_case_is_nazx_as_a_process_of_its_own(bench: Bench, sound: Outcome) -> None:
    assert sound.code == 0
    assert sound.stdout.startswith("nazx ")
    assert bench.run(Case("no file", ("ask", "--file", "none.txt", "why?"))).code == 1
    check(sound)


@pytest.mark.parametrize(
    ("changes", "told"),
    (
        ({"code": 7}, "exit code 7"),
        ({"code": -11}, "exit code -11"),
        ({"code": None}, "longer than"),
        ({"seconds": 11.0}, "longer than"),
        ({"memory": 3 << 30}, "3072 MiB"),
        ({"stdout": "a\x9b2Jb"}, "raw"),
        ({"stderr": "a\u202eb"}, "raw"),
        ({"stderr": "internal error: x"}, "internal error"),
        ({"changed": ("a.txt",)}, "changed a.txt"),
    ),
)
def test_the_law_is_broken_by(sound: Outcome, changes: dict[str, object], told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        check(replace(sound, **changes))  # type: ignore[arg-type]


def test_a_file_that_is_changed_without_leave_is_noticed(bench: Bench) -> None:
    asked = ("convert", "../model", "out", "--attention", "full")
    outcome = bench.run(Case("converted", asked))
    assert outcome.code == 0
    assert "out/config.json" in outcome.changed
    assert bench.run(Case("converted", asked, may_change=("out",))).changed == ()
