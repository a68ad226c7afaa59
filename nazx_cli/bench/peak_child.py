"""A process of its own that loads a model, builds a context and tells what memory that took.

Run as ``python -m nazx_cli.bench.peak_child FOLDER DTYPE LAYOUT CONTEXT`` by the workload ``peak``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from nazx_cli.bench.engine import kernel_of
from nazx_cli.bench.shapes import zipf_ids
from nazx_cli.bench.timing import clock
from nazx_cli.checkpoint.load import load_decoder
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.memory import probe


def measure(folder: Path, dtype: str, layout: str, count: int) -> dict[str, float | int]:
    """Bytes of weights and context, by how much resident memory grew at its peak, and seconds
    of the first token and of the one after it."""
    quantize = dtype if dtype in ("int8", "nf4") else None
    before = probe.resident_bytes()
    probe.reset_peak()
    decoder = load_decoder(folder, "cpu", "bfloat16" if quantize else dtype, quantize)
    lm = LanguageModel(folder.name, decoder, folder, layout)
    context = lm.new_context()
    windowed = lm.config.attention.kind == "windowed"
    ids = zipf_ids(lm.config.vocab_size, count)
    context.append(ids, resident=True)
    if windowed:
        context.append(ids[: lm.window])
    first_token, _ = clock(lambda: lm.next_logits(context))
    context.append([1])
    further_token, _ = clock(lambda: lm.next_logits(context))
    tensors = {t.data_ptr(): t for t in (*decoder.parameters(), *decoder.buffers())}
    return {
        "weights": sum(t.numel() * t.element_size() for t in tensors.values()),
        "context": context.nbytes,
        "distinct": len(torch.unique(ids)),
        "native": kernel_of(lm) == "compiled",
        "first_token": first_token,
        "further_token": further_token,
        "growth": probe.peak_resident_bytes() - before,
    }


if __name__ == "__main__":
    found = measure(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
    sys.stdout.write(json.dumps(found) + "\n")
