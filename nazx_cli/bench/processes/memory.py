"""Workloads ``memory`` and ``peak``: what a context holds, and what a whole process takes.

``memory`` goes layout by layout, beside a dense cache, whose size is computed, since most of them
cannot be allocated; the longest context of the default layout then runs in a process of its own.
``peak`` holds the estimate against such processes: by the whole of their resident memory, as limits
and the gauge have it. Run as ``python -m nazx_cli.bench.processes.memory FOLDER DTYPE LAYOUT
CONTEXT`` this file is that process, with ``chat`` for a layout and a document for a context one
that chats.
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
    prose_ids,
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
from nazx_cli.documents.control import strip_control
from nazx_cli.documents.gather import gather
from nazx_cli.engine.language_model import LanguageModel, load_planned
from nazx_cli.errors import NazxError
from nazx_cli.memory import probe
from nazx_cli.memory.estimate import TextSize, estimate
from nazx_cli.memory.plan import LoadOptions
from nazx_cli.quantization.cost import KINDS
from nazx_cli.reading.library import Library
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings
from nazx_cli.tokenizer import Tokenizer

_SELF = "nazx_cli.bench.processes.memory"
MEMORY, PEAK = "memory", "peak"
CONTEXTS = (10_000, 100_000, 1_000_000, 3_000_000)
WATCHED = "pairs"
PEAK_CONTEXTS = (10_000, 100_000)
CHAT_CONTEXTS = (10_000, 100_000, 1_000_000)
PEAK_LAYOUTS = ("ids", "postings", "pairs", "tables")
_CHAT = "chat"
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
            size = TextSize.of([ids.numpy()], config).as_context(kernel_name(lm))
            predicted = cost.context_bytes(config, lm.layout, size, width)
            if predicted >= _MOST:
                setup.note(f"{label}: left out, it would take {predicted / 1e9:.1f} GB")
                continue
            setup.note(label)
            yield _held(lm, ids, size, predicted)
    del models, lm
    if settings.watched and (not settings.layouts or WATCHED in settings.layouts):
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
        shapes = setup.settings.shapes
        folder = random_checkpoint(Path(scratch), shapes, inattention_config(shapes))
        precision = str(setup.dtype).removeprefix("torch.")
        real = measured(_SELF, str(folder), precision, WATCHED, str(count))
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
    """A row for each model, length and layout: the peak of a process's resident memory, and beside
    it the estimate; for the real model of one that answers questions about a document."""
    settings = setup.settings
    with TemporaryDirectory(prefix="nazx-bench-") as scratch:
        for shapes in settings.peaks:
            setup.note(f"{PEAK}: writing a random checkpoint of {shapes} shapes")
            folder = random_checkpoint(Path(scratch), shapes, inattention_config(shapes))
            for count in settings.contexts or PEAK_CONTEXTS:
                for layout in settings.layouts or PEAK_LAYOUTS:
                    setup.note(f"{PEAK}: {shapes}, {count:,} tokens, layout {layout}")
                    yield _beside_estimate(shapes, folder, settings.dtype, layout, count)
    for precision in (settings.dtype, *settings.quantize) if settings.watched else ():
        for count in settings.contexts or CHAT_CONTEXTS:
            setup.note(f"{PEAK}: {settings.model}, {precision}, a chat about {count:,} tokens")
            yield _beside_plan(settings.model, precision, count)


def _beside_estimate(name: str, folder: Path, precision: str, layout: str, count: int) -> Row:
    real = measured(_SELF, str(folder), precision, layout, str(count))
    size = cost.Size(count, real["distinct"], kernel=real["kernel"])
    config = ModelConfig.from_folder(folder)
    found = estimate(config, precision, layout, size, process=real["before"])
    row = _process_row(PEAK, f"a token of {name}", count, precision, layout, real)
    return _with_estimate(row, found.weights, found.context, found.total)


def _beside_plan(name: str, precision: str, count: int) -> Row:
    folder = ModelRef.parse(name).fetch()
    with TemporaryDirectory(prefix="nazx-bench-") as scratch:
        book, config = Path(scratch, "book.txt"), ModelConfig.from_folder(folder)
        least = config.vocab_size // 4  # lower ids stand for bytes and marks
        ids = prose_ids(config.vocab_size - least, count) + least
        text = strip_control(Tokenizer.from_folder(folder).decode(ids.tolist()))
        book.write_text(text, encoding="utf-8")
        real = measured(_SELF, name, precision, _CHAT, str(book))
    row = _process_row(PEAK, f"a chat with {name}", real["tokens"], precision, "cached", real)
    return _with_estimate(row, *real["predicted"])


def _with_estimate(row: Row, weights: int, context: int, total: int) -> Row:
    predicted = {"predicted_weights_bytes": weights, "predicted_context_bytes": context}
    details = {**row.details, **predicted}
    return replace(row, peer="estimate", theirs=one(total), details=details)


def _process_row(
    workload: str, measure: str, count: int, precision: str, layout: str, real: dict[str, Any]
) -> Row:
    """What a process took; nothing beside it yet."""
    kernel = "compiled" if real["kernel"] == "native" else ""
    details = {"weights_bytes": real["weights"], "context_bytes": real["context"]}
    peak = one(real["peak"])
    return Row(workload, measure, count, "bytes", precision, peak, layout, kernel, details=details)


def random_checkpoint(scratch: Path, name: str, config: ModelConfig) -> Path:
    """A checkpoint of 16-bit random weights, as published ones are, in ``scratch``."""
    tensors = random_tensors(config, torch.float16)
    pending = [PendingTensor.from_torch(name, tensor) for name, tensor in tensors]
    write_checkpoint(scratch / name, config.to_dict(), pending)
    return scratch / name


def measured(module: str, *arguments: str) -> dict[str, Any]:
    """The JSON object that ``module`` prints in a process of its own; ``NazxError`` where that
    fails."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NazxError(f"the measuring process failed: {last}", "run it again; NAZX_DEBUG=1")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(folder: Path, dtype: str, layout: str, count: int) -> dict[str, float | int | str]:
    """Bytes of weights and context, of resident memory before loading and at its peak, and seconds
    of the first token and of the one after it."""
    before = probe.resident_bytes()
    decoder = load_decoder(folder, "cpu", dtype)
    lm = LanguageModel(folder.name, decoder, folder, layout)
    context = lm.new_context()
    ids = zipf_ids(lm.config.vocab_size, count)
    context.append(ids, resident=True)
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
        "before": before,
        "peak": probe.peak_resident_bytes(),
    }


def _converse(name: str, dtype: str, book: Path) -> dict[str, Any]:
    """The same of a chat about ``book``, and what was predicted: weights, context, and all."""
    model = ModelRef.parse(name)
    folder = model.fetch()
    library = Library.build(gather([str(book)]).documents, Tokenizer.from_folder(folder))
    quantize = dtype if dtype in KINDS else None
    options = LoadOptions(
        "cpu",
        "bfloat16" if quantize else dtype,
        quantize,
        limit=1 << 50,
        adapters=model.adapters(None),
    )
    size = TextSize.of((d.ids for d in library.documents), ModelConfig.from_folder(folder))
    lm = load_planned(name, folder, size, options)
    session = Session(lm, library, SessionSettings(max_tokens=16))
    for question in ("Who was the first to speak?", "And what was said of the journey?"):
        for _ in session.ask(question):
            pass
    assert lm.plan is not None and session.context is not None
    found = lm.plan.estimate
    return {
        "weights": weight_bytes(lm),
        "context": session.context.nbytes,
        "kernel": kernel_name(lm),
        "tokens": library.num_tokens,
        "predicted": (found.weights, found.context, found.total),
        "peak": probe.peak_resident_bytes(),
    }


def _main(model: str, dtype: str, layout: str, context: str) -> None:
    if layout == _CHAT:
        found = _converse(model, dtype, Path(context))
    else:
        found = _measure(Path(model), dtype, layout, int(context))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
