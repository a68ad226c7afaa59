"""Running the cases of a target, and keeping those that break the law."""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fuzz import TARGETS
from fuzz.bench import Bench
from fuzz.law import Case, Outcome, check


@dataclass(frozen=True)
class Tried:
    """Case ``number`` of a target: what came of it, and what is wrong with that, if anything."""

    target: str
    seed: int
    number: int
    case: Case
    outcome: Outcome
    fault: str | None

    @property
    def again(self) -> str:
        """The command that runs this case alone."""
        return (
            f"python -m tests.fuzz --target {self.target} --seed {self.seed} --case {self.number}"
        )


def cases_of(target: str, seed: int) -> Iterator[Case]:
    """The cases of a target, the same for the same seed."""
    module = importlib.import_module(TARGETS[target])
    return module.cases(random.Random(f"{target}:{seed}"))


def tried(bench: Bench, target: str, seed: int) -> Iterator[Tried]:
    """Run the target's cases one after another, without end."""
    for number, case in enumerate(cases_of(target, seed)):
        yield attempt(bench, target, seed, number, case)


def attempt(bench: Bench, target: str, seed: int, number: int, case: Case) -> Tried:
    """Run one case and hold it to the law."""
    outcome = bench.run(case)
    fault = None
    try:
        check(outcome)
        if case.after:
            case.after(bench.folder, outcome)
    except AssertionError as error:
        fault = str(error)
    return Tried(target, seed, number, case, outcome, fault)


def keep(found: Tried, folder: Path) -> Path:
    """Write a case down: its files, streams, and how to repeat it."""
    place = folder / f"{found.target}-{found.seed}-{found.number}"
    place.mkdir(parents=True, exist_ok=True)
    for name, data in found.case.files.items():
        path = place / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (place / "stdin").write_bytes(found.case.stdin)
    (place / "stdout").write_text(found.outcome.stdout)
    (place / "stderr").write_text(found.outcome.stderr)
    told = (found.case.name, found.fault, found.again, f"nazx {found.case.argv}", found.case.env)
    (place / "about").write_text("".join(f"{line}\n" for line in told), errors="backslashreplace")
    return place
