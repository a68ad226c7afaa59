"""``python -m tests.fuzz``: run the cases of all targets in turn, for as long as is wanted."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does for what tests share

from fuzz import TARGETS
from fuzz.bench import Bench
from fuzz.running import Tried, attempt, cases_of, keep, tried


def main() -> int:
    """Run; 1 where a case broke the law."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--case", type=int, help="run this case of the target alone, and show it")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir(), "nazx-fuzz"))
    options = parser.parse_args()
    targets = options.target or list(TARGETS)
    with tempfile.TemporaryDirectory() as root, Bench(Path(root)) as bench:
        if options.case is not None:
            return _show(bench, targets[0], options.seed, options.case)
        return _run_on(bench, targets, options.seed, options.minutes * 60, options.keep)


def _show(bench: Bench, target: str, seed: int, number: int) -> int:
    case = next(islice(cases_of(target, seed), number, None))
    found = attempt(bench, target, seed, number, case)
    print(f"{case.name}: nazx {' '.join(map(ascii, case.argv))}")
    print(f"exit code {found.outcome.code}, {found.outcome.seconds:.2f} s", end=", ")
    print(f"{found.outcome.memory >> 20} MiB; {found.fault or 'keeps the law'}")
    for name, text in (("stdout", found.outcome.stdout), ("stderr", found.outcome.stderr)):
        print(f"--- {name}\n{ascii(text)[1:-1][:4000]}")
    return int(found.fault is not None)


def _run_on(bench: Bench, targets: list[str], seed: int, seconds: float, folder: Path) -> int:
    print(f"seed {seed}; what breaks the law is kept in {folder}", flush=True)
    codes: defaultdict[str, Counter[int | None]] = defaultdict(Counter)
    faults: Counter[str] = Counter()
    end = time.monotonic() + seconds
    with suppress(KeyboardInterrupt):  # Ctrl-C ends a long run; its counts stand
        for found in _in_turn(bench, targets, seed):
            codes[found.target][found.outcome.code] += 1
            if found.fault:
                faults[found.target] += 1
                print(f"{keep(found, folder)}: {ascii(found.fault)[1:-1]}", flush=True)
            if time.monotonic() > end:
                break
    for target, counts in codes.items():
        by_code = ", ".join(f"{n} with {code}" for code, n in sorted(counts.items(), key=str))
        print(f"{target}: {counts.total()} cases, {faults[target]} faults; exit codes: {by_code}")
    return int(bool(faults))


def _in_turn(bench: Bench, targets: list[str], seed: int) -> Iterator[Tried]:
    runs = [tried(bench, target, seed) for target in targets]
    while True:
        for run in runs:
            yield next(run)


if __name__ == "__main__":
    sys.exit(main())
