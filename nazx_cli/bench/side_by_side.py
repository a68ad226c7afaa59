"""The real model against its rivals: what the workloads ``prefill`` and ``decode`` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from nazx_cli.bench.engine import Engine, Ours, Rival, precision_of
from nazx_cli.bench.results import Row, Spread
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.shapes import zipf_ids
from nazx_cli.bench.timing import Side, alternate
from nazx_cli.engine.language_model import LanguageModel


def compare(
    setup: Setup,
    workload: str,
    measure: str,
    length: int,
    timed: Callable[[Engine, Tensor], float],
    details: Mapping[str, float | int] | None = None,
) -> Iterator[Row]:
    """``timed(engine, ids)`` of every model and rival in turns, over a prompt of ``length``.

    A row for each model and rival; quantized models only meet rivals that are quantized too.
    """
    ids = zipf_ids(setup.lm.config.vocab_size, length)
    rivals = [rival for rival in setup.rivals if rival.engine is not None]
    engines = [*(Ours(lm) for lm in setup.models), *(r.engine for r in rivals if r.engine)]
    label = f"{workload}, {length:,} tokens"
    sides = [_side(engine, ids, timed) for engine in engines]
    runs = alternate(sides, setup.settings.repeat, on_round=setup.rounds(label))
    logits = [engine.prefill(ids)[1].float() for engine in engines]
    theirs = {r.name: at for at, r in enumerate(rivals, len(setup.models))}
    for at, lm in enumerate(setup.models):
        for rival in setup.rivals:
            if lm.quantization and rival.precision == setup.lm.dtype:
                continue
            found = dict(details or {})
            other = theirs.get(rival.name)
            if other is not None:
                difference = (logits[at] - logits[other]).abs().max()
                found["largest_logit_difference"] = float(difference)
            yield Row(
                workload=workload,
                measure=measure,
                tokens=length,
                unit="s",
                dtype=precision_of(lm),
                ours=Spread(runs[at]),
                peer=rival.name,
                theirs=None if other is None else Spread(runs[other]),
                note=_note(lm, rival),
                details=found,
            )


def _side(engine: Engine, ids: Tensor, timed: Callable[[Engine, Tensor], float]) -> Side:
    return lambda: timed(engine, ids)


def _note(lm: LanguageModel, rival: Rival) -> str:
    """Says so where the two sides hold the same weights in different ways."""
    ours = precision_of(lm)
    differ = rival.engine is not None and rival.precision != ours
    told = f"theirs is {rival.precision}, ours {ours}" if differ else ""
    return "; ".join(part for part in (told, rival.note) if part)
