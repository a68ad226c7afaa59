"""Weights in large pages: which stretches of memory are asked for, what the system makes of them,
and that nothing else changes."""

from __future__ import annotations

import ctypes
import mmap
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import nazx, write_checkpoint
from models import BASES, FULL, new_folder

from nazx_cli.kernels.native.products import multiplies
from nazx_cli.model.pages import PAGE, empty, enlarge, stretches


def system_has_them() -> bool:
    """Whether the system puts memory of one's own into large pages where it is asked to."""
    try:
        if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
            return False
        room = mmap.mmap(-1, 3 * PAGE)
        room[:] = b"x" * len(room)
        start = ctypes.addressof(ctypes.c_char.from_buffer(room))
        start += -start % PAGE
        advise = ctypes.CDLL(None).madvise
        advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        return advise(start, PAGE, 14) == 0 and advise(start, PAGE, 25) == 0
    except (OSError, AttributeError):
        return False


needs_them = pytest.mark.skipif(not system_has_them(), reason="the system has no large pages")


def in_large_pages(tensor: torch.Tensor) -> int:
    """Bytes in large pages of the mappings that a tensor lies in, as the system tells them."""
    start, found, inside = tensor.data_ptr(), 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head, *rest = line.split()
        if not head.endswith(":"):
            first, last = (int(part, 16) for part in head.split("-"))
            inside = first < start + tensor.nbytes and start < last
        elif inside and head == "AnonHugePages:":
            found += int(rest[0]) * 1024
    return found


@pytest.mark.parametrize("seed", range(50))
def test_stretches_are_the_whole_pages_within_what_is_held(seed: int) -> None:
    rng = random.Random(seed)
    places = [(at, at + rng.randint(0, 30)) for at in rng.sample(range(200), rng.randint(0, 12))]
    row = "".join("x" if any(a <= cell < b for a, b in places) else " " for cell in range(240))
    row = re.sub("(?<=x) {1,2}(?=x)", lambda gap: "x" * len(gap[0]), row)
    want = [at for at in range(0, 240, 8) if row[at : at + 8] == "x" * 8]
    got = [at for first, last in stretches(places, 8, 2) for at in range(first, last, 8)]
    assert got == want


@needs_them
def test_tensors_stay_as_they_are_and_come_into_large_pages() -> None:
    tensor = torch.randn(5 * PAGE // 4)
    address, before = tensor.data_ptr(), tensor.clone()
    thread = enlarge([tensor, torch.randn(3)])
    assert thread is not None
    thread.join()
    assert tensor.data_ptr() == address and torch.equal(tensor, before)
    assert in_large_pages(tensor) >= 3 * PAGE


@pytest.mark.parametrize("size", (0, 1, PAGE, 5 * PAGE + 3))
def test_memory_that_is_asked_for_in_large_pages_holds_what_it_is_given(size: int) -> None:
    tensor = empty((size,), torch.uint8, torch.device("cpu"))
    assert tensor.shape == (size,) and tensor.dtype == torch.uint8
    assert bool((tensor.fill_(3) == 3).all())


@needs_them
@pytest.mark.slow
@pytest.mark.skipif(not multiplies(), reason="no compiler, or no vectors that it has code for")
@pytest.mark.parametrize("free", ("free", "none"))
def test_weights_are_in_large_pages_from_the_first_or_once_an_answer_is_long(free: str) -> None:
    shape = {"vocab_size": 20_000, "hidden_size": 120}
    folder = write_checkpoint(new_folder(), nazx(BASES["llama"], FULL, **shape))
    # In a process of its own: there memory is not what another tensor left in large pages.
    run = [sys.executable, "-c", _ANSWER, str(folder), free, str(Path(__file__).parent)]
    done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=120)
    loaded, short, long = map(int, done.stdout.split())
    if free == "free":
        assert loaded >= 3 * PAGE
    else:
        assert short == loaded and long >= loaded + 2 * PAGE


_ANSWER = """
import sys, threading, torch
sys.path.append(sys.argv[3])
from test_pages import in_large_pages
from nazx_cli.engine.language_model import load_model
from nazx_cli.model import pages

if sys.argv[2] == "none":  # as where the system has no large pages left
    pages.empty = lambda shape, dtype, device: torch.empty(shape, dtype=dtype, device=device)
lm = load_model(sys.argv[1])
context = lm.new_context()
context.append([1, 2, 3])
found = {-1: in_large_pages(lm.decoder.embed.weight)}
for token in range(60):
    context.append([token])
    lm.next_logits(context)
    for thread in threading.enumerate():
        if thread.name == "large pages":
            thread.join()
    found[token] = in_large_pages(lm.decoder.embed.weight)
print(found[-1], found[20], found[59])
"""
