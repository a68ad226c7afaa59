"""Workloads ``memory`` and ``peak``: what a context holds, and what a whole process takes.

``memory`` goes layout by layout, beside a dense cache, whose size is computed, since most of them
cannot be allocated; the longest context of the default layout then runs in a process of its own.
``peak`` holds the estimate against such processes. Run as ``python -m nazx_cli.bench.memory FOLDER
DTYPE LAYOUT CONTEXT`` this file is that process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from nazx_cli.bench.models import (
    inattention_config,
    kernel_name,
    random_tensors,
    row_of,
    weight_bytes,
    zipf_ids,
)
from nazx_cli.bench.results import Row, clock, one
from nazx_cli.bench.setup import Setup
from nazx_cli.catalog.model_ref import ModelRef
from nazx_cli.checkpoint.load import load_decoder
from nazx_cli.checkpoint.write import PendingTensor, write_checkpoint
from nazx_cli.config import ModelConfig
from nazx_cli.context import cost
from nazx_cli.context.layouts import LAYOUTS
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.errors import NazxError
from nazx_cli.memory import probe
from nazx_cli.memory.estimate import estimate

MEMORY, PEAK = "memory", "peak"
CONTEXTS = (10_000, 100_000, 1_000_000, 3_000_000)
WATCHED = "pairs"
PEAK_SHAPES = ("nazx-70m", "nazx-160m", "nazx-410m")
PEAK_CONTEXTS = (10_000, 100_000)
PEAK_LAYOUTS = ("ids", "postings", "pairs", "tables")
_MOST = 4_000_000_000  # bytes: a layout that needs more is left out


def memory(setup: Setup) -> Iterator[Row]:
    """For each length and layout bytes held, in all and by position, beside a dense cache's;
    then the peak of a process that gives a token after the longest context."""
    settings = setup.settings
    models = setup.random_models(LAYOUTS, setup.dtype)
    config, width = models[0].config, setup.dtype.itemsize
    contexts = settings.contexts or CONTEXTS
    for count in contexts:
        ids = zipf_ids(config.vocab_size, count)
        for lm in models:
            label = f"{MEMORY}: {count:,} tokens, layout {lm.layout}"
            size = cost.Size(count, len(torch.unique(ids)), kernel=kernel_name(lm))
            predicted = cost.context_bytes(config, lm.layout, size, width)
            if predicted >= _MOST:
                setup.note(f"{label}: left out, it would take {predicted / 1e9:.1f} GB")
                continue
            setup.note(label)
            yield _held(lm, ids, size, predicted)
    del models, lm
    if not settings.layouts or WATCHED in settings.layouts:
        yield _watched(setup, config, max(contexts))


def _held(lm: LanguageModel, ids: Tensor, size: cost.Size, predicted: int) -> Row:
    """A context of ``ids`` with all that its layout keeps once it has given a token."""
    context = lm.new_context()
    context.append(ids, resident=True)
    seconds, _ = clock(lambda: lm.next_logits(context))
    per_position = cost.kv_bytes_per_position(lm.config, lm.decoder.dtype.itemsize)
    return row_of(
        lm,
        MEMORY,
        "bytes held",
        size.positions,
        one(context.nbytes),
        unit="bytes",
        peer="dense cache (computed)",
        theirs=one(size.positions * per_position),
        details={
            "per_position_bytes": context.nbytes / size.positions,
            "dense_per_position_bytes": per_position,
            "predicted_bytes": predicted,
            "first_token_seconds": seconds,
            "distinct_tokens": size.distinct,
        },
    )


def _watched(setup: Setup, config: ModelConfig, count: int) -> Row:
    """What a process of its own takes to load the model and give a token."""
    with TemporaryDirectory(prefix="nazx-bench-") as scratch:
        setup.note(f"{MEMORY}: {count:,} tokens in a process of its own")
        folder = _random_checkpoint(Path(scratch), setup.settings.shapes)
        precision = str(setup.dtype).removeprefix("torch.")
        real = _measured(folder, precision, WATCHED, count)
    dense = count * cost.kv_bytes_per_position(config, setup.dtype.itemsize)
    label = "process peak, weights and all"
    row = _process_row(MEMORY, label, count, precision, WATCHED, real)
    return replace(
        row,
        kernel=row.kernel or "portable",
        peer="weights and dense cache (computed)",
        theirs=one(dense + real["weights"]),
        details={
            **row.details,
            "first_token_seconds": real["first_token"],
            "further_token_seconds": real["further_token"],
        },
    )


def peak(setup: Setup) -> Iterator[Row]:
    """A row for each model, length and layout: peak growth of resident memory, and beside it
    the estimate."""
    settings = setup.settings
    with TemporaryDirectory(prefix="nazx-bench-") as scratch:
        for shapes in PEAK_SHAPES:
            setup.note(f"{PEAK}: writing a random checkpoint of {shapes} shapes")
            folder = _random_checkpoint(Path(scratch), shapes)
            for count in settings.contexts or PEAK_CONTEXTS:
                for layout in settings.layouts or PEAK_LAYOUTS:
                    setup.note(f"{PEAK}: {shapes}, {count:,} tokens, layout {layout}")
                    yield _beside_estimate(shapes, folder, settings.dtype, layout, count)
    folder = ModelRef.parse(settings.model).fetch()
    for precision in (settings.dtype, "int8", "nf4"):
        setup.note(f"{PEAK}: {settings.model}, {precision}")
        yield _beside_estimate(settings.model, folder, precision, "auto", PEAK_CONTEXTS[0])


def _beside_estimate(name: str, folder: Path, precision: str, layout: str, count: int) -> Row:
    real = _measured(folder, precision, layout, count)
    held = "cached" if layout == "auto" else layout
    size = cost.Size(count, real["distinct"], kernel=real["kernel"])
    found = estimate(ModelConfig.from_folder(folder), precision, held, size)
    row = _process_row(PEAK, f"peak growth, {name}", count, precision, held, real)
    predicted = {"predicted_weights_bytes": found.weights, "predicted_context_bytes": found.context}
    details = {**row.details, **predicted}
    return replace(row, peer="estimate", theirs=one(found.total), details=details)


def _process_row(
    workload: str, measure: str, count: int, precision: str, layout: str, real: dict[str, Any]
) -> Row:
    """What a process took; nothing beside it yet."""
    kernel = "compiled" if real["kernel"] == "native" else ""
    details = {"weights_bytes": real["weights"], "context_bytes": real["context"]}
    growth = one(real["growth"])
    return Row(
        workload, measure, count, "bytes", precision, growth, layout, kernel, details=details
    )


def _random_checkpoint(scratch: Path, shapes: str) -> Path:
    """A checkpoint of 16-bit random weights, as published ones are."""
    config = inattention_config(shapes)
    tensors = random_tensors(config, torch.float16)
    pending = [PendingTensor.from_torch(name, tensor) for name, tensor in tensors]
    write_checkpoint(scratch / shapes, config.to_dict(), pending)
    return scratch / shapes


def _measured(folder: Path, precision: str, layout: str, count: int) -> dict[str, Any]:
    """What ``_measure`` finds in a process of its own; ``NazxError`` where that fails."""
    command = [sys.executable, "-m", "nazx_cli.bench.memory"]
    done = subprocess.run(
        [*command, str(folder), precision, layout, str(count)], capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NazxError(f"the measuring process failed: {last}", "run it again; NAZX_DEBUG=1")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(folder: Path, dtype: str, layout: str, count: int) -> dict[str, float | int | str]:
    """Bytes of weights and context, by how much resident memory grew at its peak, and seconds
    of the first token and of the one after it."""
    quantize = dtype if dtype in ("int8", "nf4") else None
    before = probe.resident_bytes()
    probe.reset_peak()
    decoder = load_decoder(folder, "cpu", "bfloat16" if quantize else dtype, quantize)
    lm = LanguageModel(folder.name, decoder, folder, layout)
    context = lm.new_context()
    ids = zipf_ids(lm.config.vocab_size, count)
    context.append(ids, resident=True)
    if lm.config.attention.kind == "windowed":
        context.append(ids[: lm.window])
    first_token, _ = clock(lambda: lm.next_logits(context))
    context.append([1])
    further_token, _ = clock(lambda: lm.next_logits(context))
    return {
        "weights": weight_bytes(lm),
        "context": context.nbytes,
        "distinct": len(torch.unique(ids)),
        "kernel": kernel_name(lm),
        "first_token": first_token,
        "further_token": further_token,
        "growth": probe.peak_resident_bytes() - before,
    }


if __name__ == "__main__":
    found = _measure(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
    sys.stdout.write(json.dumps(found) + "\n")
