"""Weights in large pages: which stretches of memory are asked for, what the system makes of them,
and that nothing else changes."""

from __future__ import annotations

import ctypes
import mmap
import random
import re
import threading
from pathlib import Path

import pytest
import torch
from checkpoints import nazx, write_checkpoint
from models import BASES, FULL, new_folder

from nazx_cli.engine.language_model import load_model
from nazx_cli.kernels.native.products import multiplies
from nazx_cli.model.pages import PAGE, enlarge, stretches


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


@needs_them
@pytest.mark.skipif(not multiplies(), reason="no compiler, or no vectors that it has code for")
def test_a_long_answer_has_its_weights_in_large_pages_a_short_one_has_not() -> None:
    shape = {"vocab_size": 20_000, "hidden_size": 120}
    lm = load_model(write_checkpoint(new_folder(), nazx(BASES["llama"], FULL, **shape)))
    context = lm.new_context()
    context.append([1, 2, 3])
    before = in_large_pages(lm.decoder.embed.weight)
    for token in range(60):
        context.append([token])
        lm.next_logits(context)
        for thread in threading.enumerate():
            if thread.name == "large pages":
                thread.join()
        if token == 20:
            assert in_large_pages(lm.decoder.embed.weight) == before
    assert in_large_pages(lm.decoder.embed.weight) >= before + 2 * PAGE
