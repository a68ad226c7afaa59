"""Workload ``peak``: predicted memory against what a process of its own really takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from nazx_cli.bench.results import Row, Spread
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.shapes import fill_random, inattention_config
from nazx_cli.catalog.model_ref import ModelRef
from nazx_cli.checkpoint.families import expected_shapes
from nazx_cli.checkpoint.write import PendingTensor, write_checkpoint
from nazx_cli.config import ModelConfig
from nazx_cli.context.cost import Size
from nazx_cli.errors import NazxError
from nazx_cli.memory.estimate import estimate

NAME = "peak"
SHAPES = ("nazx-70m", "nazx-160m", "nazx-410m")
CONTEXTS = (10_000, 100_000)
LAYOUTS = ("ids", "postings", "pairs", "tables")


def run(setup: Setup) -> Iterator[Row]:
    """A row for each model, length and layout: peak growth of resident memory, and beside it
    the estimate."""
    settings = setup.settings
    with TemporaryDirectory(prefix="nazx-bench-") as scratch:
        for shapes in SHAPES:
            setup.note(f"{NAME}: writing a random checkpoint of {shapes} shapes")
            folder = random_checkpoint(Path(scratch), shapes)
            for count in settings.contexts or CONTEXTS:
                for layout in settings.layouts or LAYOUTS:
                    setup.note(f"{NAME}: {shapes}, {count:,} tokens, layout {layout}")
                    yield _row(shapes, folder, settings.dtype, layout, count)
    folder = ModelRef.parse(settings.model).fetch()
    for precision in (settings.dtype, "int8", "nf4"):
        setup.note(f"{NAME}: {settings.model}, {precision}")
        yield _row(settings.model, folder, precision, "auto", CONTEXTS[0])


def random_checkpoint(scratch: Path, shapes: str) -> Path:
    """A checkpoint of 16-bit random weights, as published ones are."""
    config = inattention_config(shapes)
    generator = torch.Generator().manual_seed(0)

    def pending() -> Iterator[PendingTensor]:
        for name, shape in expected_shapes(config).items():
            tensor = torch.empty(shape, dtype=torch.float16)
            fill_random(name, tensor, generator)
            yield PendingTensor.from_torch(name, tensor)

    folder = scratch / shapes
    write_checkpoint(folder, config.to_dict(), list(pending()))
    return folder


def _row(name: str, folder: Path, precision: str, layout: str, count: int) -> Row:
    config = ModelConfig.from_folder(folder)
    real = measured(folder, precision, layout, count)
    held = "cached" if layout == "auto" else layout
    size = Size(count, real["distinct"], native=real["native"])
    found = estimate(config, precision, held, size)
    return Row(
        workload=NAME,
        measure=f"peak growth, {name}",
        tokens=count,
        unit="bytes",
        dtype=precision,
        ours=Spread((float(real["growth"]),)),
        layout=held,
        kernel="compiled" if real["native"] else "",
        peer="estimate",
        theirs=Spread((float(found.total),)),
        details={
            "weights_bytes": real["weights"],
            "predicted_weights_bytes": found.weights,
            "context_bytes": real["context"],
            "predicted_context_bytes": found.context,
        },
    )


def measured(folder: Path, precision: str, layout: str, count: int) -> dict[str, Any]:
    """What ``peak_child`` finds in a process of its own; ``NazxError`` where that fails."""
    command = [sys.executable, "-m", "nazx_cli.bench.peak_child"]
    done = subprocess.run(
        [*command, str(folder), precision, layout, str(count)], capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NazxError(f"the measuring process failed: {last}", "run it again; NAZX_DEBUG=1")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
