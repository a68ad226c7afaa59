"""Workloads ``ranks``, ``blocks`` and ``split``: a model over several processes on this machine.

``ranks`` is a long context under InAttention, of which each process holds a stretch; ``blocks`` a
long prompt of a full model, read in blocks (Star Attention); ``split`` weights of which each holds
a part (torch's tensor parallelism). For each number of processes, in rounds that alternate: seconds
and processor time of the first token and of a further one, bytes that go round for it, and what a
process holds, beside the first number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nazx_cli.bench.models import inattention_config, registry_config
from nazx_cli.bench.processes.memory import random_checkpoint
from nazx_cli.bench.processes.rank import Case
from nazx_cli.bench.results import Row, Side, Spread
from nazx_cli.bench.setup import Setup
from nazx_cli.catalog.model_ref import ModelRef
from nazx_cli.checkpoint.convert import convert_folder
from nazx_cli.config import AttentionConfig, ModelConfig
from nazx_cli.context.ranks.sharing import Share, check_share
from nazx_cli.errors import UsageError

RANKS, BLOCKS, SPLIT = "ranks", "blocks", "split"
_CONTEXTS = {RANKS: (3_000_000,), BLOCKS: (6_144,), SPLIT: (1_000,)}
_PROCESSES = {RANKS: (1, 2, 4), BLOCKS: (1, 2), SPLIT: (1, 2)}
_LAYOUTS = ("pairs",)
_SPLITS = "qwen2.5-0.5b"  # shapes that are split, where those of the settings cannot be
_MOST = 8  # processes that are tried where no number of the settings divides the heads
_FULL = AttentionConfig("full")


def ranks(setup: Setup) -> Iterator[Row]:
    """A resident context of random weights, for each length and layout."""
    settings = setup.settings
    with TemporaryDirectory(prefix="nazx-bench-") as scratch:
        config = inattention_config(settings.shapes)
        folder = random_checkpoint(Path(scratch), settings.shapes, config)
        for count in settings.contexts or _CONTEXTS[RANKS]:
            for layout in settings.layouts or _LAYOUTS:
                case = Case(str(folder), settings.dtype, count, 1, layout, resident=True)
                yield from _rounds(setup, RANKS, settings.shapes, case, _processes(setup, RANKS))


def blocks(setup: Setup) -> Iterator[Row]:
    """A prompt of the model of the settings and one of random weights, both with full attention."""
    yield from _live(setup, BLOCKS, setup.settings.shapes)


def split(setup: Setup) -> Iterator[Row]:
    """The same with split weights, over as many processes as divide the heads."""
    settings = setup.settings
    shapes = settings.shapes
    if not _divide(registry_config(shapes), _processes(setup, SPLIT)):
        shapes = _SPLITS if settings.larger else ""  # none where all is to be small
    yield from _live(setup, SPLIT, shapes)


def _live(setup: Setup, workload: str, shapes: str) -> Iterator[Row]:
    settings = setup.settings
    for name, is_random in ((settings.model, False), (shapes, True)):
        if not name:
            continue
        with _as_full(setup, workload, name, is_random=is_random) as folder:
            config, processes = ModelConfig.from_folder(folder), _processes(setup, workload)
            if workload == SPLIT:
                processes = _divide(config, processes) or _divide(config, range(1, _MOST + 1))[:2]
            if not processes:
                setup.note(f"{workload}: {name} is left out: no few processes divide its heads")
                continue
            for count in settings.contexts or _CONTEXTS[workload]:
                case = Case(
                    *(str(folder), settings.dtype, count, 1),
                    block=settings.block,
                    split=workload == SPLIT,
                )
                yield from _rounds(setup, workload, name, case, processes)


@contextmanager
def _as_full(setup: Setup, workload: str, name: str, *, is_random: bool) -> Iterator[Path]:
    """A checkpoint of that name with full attention, of random weights or its own."""
    with TemporaryDirectory(prefix="nazx-bench-") as scratch:
        if is_random:
            setup.note(f"{workload}: writing a random checkpoint of {name} shapes")
            config = replace(registry_config(name), attention=_FULL)
            yield random_checkpoint(Path(scratch), name, config)
        else:
            convert_folder(ModelRef.parse(name).fetch(), dest := Path(scratch, "model"), _FULL)
            yield dest


def _processes(setup: Setup, workload: str) -> Sequence[int]:
    return setup.settings.processes or _PROCESSES[workload]


def _divide(config: ModelConfig, processes: Sequence[int]) -> tuple[int, ...]:
    """One process, and those numbers of several that can split a model of ``config``; nothing where
    none can."""
    found = [1]
    for count in processes:
        try:
            check_share(config, Share(count, split=True))
        except UsageError:
            continue
        found.append(count)
    return tuple(found) if len(found) > 1 else ()


def _rounds(
    setup: Setup, workload: str, name: str, case: Case, processes: Sequence[int]
) -> Iterator[Row]:
    """Rows of each number of ``processes``, which take turns."""
    found: dict[int, list[dict[str, Any]]] = {count: [] for count in processes}

    def side(count: int) -> Side:
        of = replace(case, processes=count, threads=setup.settings.threads)

        def run() -> float:
            found[count].append(of.measure())
            return 0.0

        return run

    label = f"{workload}: {name}, {case.tokens:,} tokens"
    setup.alternate(label, [side(count) for count in found], warm_up=False)
    alone = next(iter(found))
    for count, rounds in found.items():
        beside = None if count == alone else found[alone]
        row = Row(workload, "", case.tokens, "s", case.dtype, Spread(()), note=name)
        if case.resident:
            kernel = "compiled" if rounds[0]["kernel"] == "native" else ""
            row = replace(row, layout=case.layout, kernel=kernel)
        if beside is not None:
            row = replace(row, peer=_named(alone))
        yield from _rows(row, _named(count), rounds, beside)


def _rows(
    row: Row, who: str, rounds: list[dict[str, Any]], beside: list[dict[str, Any]] | None
) -> Iterator[Row]:
    """Of one number of processes, beside those of another."""

    def figure(measure: str, unit: str, of: Any, **details: float) -> Row:
        theirs = None if beside is None else Spread(tuple(map(of, beside)))
        ours = Spread(tuple(map(of, rounds)))
        measure = f"{measure}, {who}"
        return replace(row, measure=measure, unit=unit, ours=ours, theirs=theirs, details=details)

    last = rounds[-1]
    for what in ("first", "further"):
        ran = last[what]
        yield figure(
            f"{what} token",
            "s",
            lambda each, what=what: each[what]["seconds"],
            **({"gathering_seconds": ran["gathering"]} if ran["gathering"] else {}),
        )
        yield figure(
            f"{what} token, processor time of the busiest",
            "s",
            lambda each, what=what: each[what]["processor"],
        )
        if ran["sockets"] or ran["moved"]:
            carried = figure(
                f"{what} token, bytes to and from the first",
                "bytes",
                lambda each, what=what: each[what]["sockets"] or each[what]["moved"],
                counted_bytes=ran["moved"],
            )
            yield replace(carried, peer="", theirs=None)
    yield figure("context of a process at most", "bytes", lambda each: max(each["held"]))
    yield figure(
        "peak of a process at most",
        "bytes",
        lambda each: max(each["peaks"]),
        weights_bytes=last["weights"],
    )


def _named(processes: int) -> str:
    return "one process" if processes == 1 else f"{processes} processes"
