"""What the allocator keeps while a model computes, and gives back: in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from checkpoints import nazx, write_checkpoint
from models import BASES, WINDOWED, new_folder

from nazx_cli.model.libraries import _glibc

_READ_TWICE = """
import resource, sys
from pathlib import Path
from nazx_cli.engine.language_model import load_model
from nazx_cli.model.libraries import give_back

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

lm = load_model(sys.argv[1], quantize=sys.argv[2] if sys.argv[2:] else None)
before = held()
found = []
for _ in range(5):
    context = lm.new_context()
    context.append([1 + at % 50 for at in range(1000)])
    start = faults()
    lm.next_logits(context)
    found.append(faults() - start)
del context
kept = held()
give_back()
print(*found, before, kept, held())
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or _glibc() is None, reason="it is glibc that keeps memory"
)
@pytest.mark.parametrize("quantize", ((), ("int8",)), ids=("whole", "int8"))
def test_a_prompt_is_read_in_memory_that_is_kept_until_it_is_given_back(
    quantize: tuple[str, ...],
) -> None:
    if quantize:
        pytest.importorskip("bitsandbytes")
    sizes = {"hidden_size": 256, "intermediate_size": 2048, "head_dim": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    windowed = {**WINDOWED, "window": 1024}
    folder = write_checkpoint(new_folder(), nazx(BASES["llama"], windowed, **sizes, **heads))
    run = [sys.executable, "-c", _READ_TWICE, str(folder), *quantize]
    done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=120)
    first, *later, before, kept, after = map(int, done.stdout.split())
    megabyte = 256  # pages
    assert first > 4 * megabyte  # or this model asks for too little to tell
    assert sum(later) < first / 2  # of memory that is given back, one read asks for as much again
    assert kept - before > 4 * 1024 and after < kept - 2 * 1024
