"""The Triton kernel: in Triton's interpreter by default, on a GPU with ``-m gpu``.

What is asked of every layout is in ``test_layouts.py``, where this form of two of them takes part.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from models import model
from triton_problem import LENGTHS, problem

from nazx_cli.kernels.lists import PositionLists
from nazx_cli.kernels.triton.index import WIDTHS, Segments

SHAPES = ((1, 1, 1), (3, 3, 2), (8, 8, 8), (12, 12, 8), (24, 24, 2), (6, 2, 5), (2, 1, 32))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_weights_equal_those_of_keys_turned_to_their_positions(
    shape: tuple[int, int, int], device: torch.device
) -> None:
    given = problem(*shape)
    assert (given.weights(device).double() - given.expected()).abs().max() < 2e-6


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16))
def test_pairs_of_half_width_are_summed_in_float32(
    dtype: torch.dtype, device: torch.device
) -> None:
    given = problem(12, 4, 8, dtype=dtype)
    assert (given.weights(device).double() - given.expected()).abs().max() < 2e-6


@pytest.mark.parametrize("appended", (0, 1, 200))
@pytest.mark.parametrize("lengths", ((1,), (2500,), (1,) * 200), ids=("one", "long", "short"))
def test_appended_positions_count_like_all_others(
    appended: int, lengths: tuple[int, ...], device: torch.device
) -> None:
    given = problem(3, 3, 2, lengths=lengths, appended=appended)
    assert (given.weights(device).double() - given.expected()).abs().max() < 2e-6


def test_scores_of_hundreds_neither_overflow_nor_vanish(device: torch.device) -> None:
    """Heads whose best list scores 600 and whose worst -600, and one where all score -600."""
    given = problem(8, 8, 2)
    given.s[:] = torch.linspace(-600, 600, len(LENGTHS))[:, None]
    given.s[:, 0] = -600
    given.s[:, 1] = 600
    found = given.weights(device)
    assert found.isfinite().all()
    assert (found.sum(0) - 1).abs().max() < 1e-5
    # float32 scores near 600 are off by 3e-5 each.
    assert (found.double() - given.expected()).abs().max() < 2e-4


def test_segments_hold_every_position_once_and_little_else() -> None:
    rng = random.Random(2)
    for _ in range(20):
        lengths = [rng.choice((0, 1, 1, 2, 3, 9, 40, 128, 130, 999)) for _ in range(30)]
        slots = torch.arange(30).repeat_interleave(torch.tensor(lengths))
        slots = slots[torch.randperm(len(slots))].to(torch.int32)
        lists, held = PositionLists(), Segments(torch.device("cpu"))
        lists.build(slots, 30)
        held.build(lists)
        new = [rng.randrange(30) for _ in range(rng.choice((0, 1, 50)))]
        held.append(torch.tensor(new, dtype=torch.int32))
        want = [*slots.tolist(), *new]
        found = [-1] * len(want)
        edges = (*held.ends, held.count)
        for g, (slot, start, count) in enumerate(held.table[:, : held.count].t().tolist()):
            kind = sum(g >= edge for edge in edges)
            assert 1 <= count <= WIDTHS[kind]
            assert kind == 2 or 4 * count > WIDTHS[kind]
            for position in held.positions[start : start + count].tolist():
                assert found[position] == -1
                found[position] = slot
        assert found == want


def _run(code: str, **settings: str) -> str:
    """What ``code`` prints in a process of its own, not in Triton's interpreter."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**env, **settings},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_imports_triton_on_a_cpu() -> None:
    folder = model("neox-sequential", "inattention").folder
    assert _run(_ON_A_CPU, FOLDER=str(folder)) == "False\n"


_ON_A_CPU = """
import os, sys
from nazx_cli.engine.fitting import plan_here
from nazx_cli.engine.language_model import load_model
lm = load_model(os.environ["FOLDER"])
context = lm.new_context()
context.append([1, 2, 3])
lm.next_logits(context)
print("triton" in sys.modules)
"""


@pytest.mark.slow
def test_the_kernel_compiles_for_cuda(tmp_path: Path) -> None:
    """By Triton's compiler, which needs no GPU: the interpreter is laxer than it is."""
    triton = pytest.importorskip("triton")
    if not (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas").exists():
        pytest.skip("no assembler for CUDA")
    assert len(_run(_COMPILE, TRITON_CACHE_DIR=str(tmp_path)).split()) == 2


_COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from nazx_cli.kernels.triton.weigh import weigh_segments as kernel

types = dict.fromkeys(("query", "pairs"), "*bf16") | dict.fromkeys(("table", "positions"), "*i32")
types |= dict.fromkeys(("own", "s", "outer", "inner", "found"), "*fp32") | {"scale": "fp32"}
types |= dict.fromkeys(("capacity", "wide", "middle", "count"), "i32")
for heads, group, half, block, capability in ((12, 1, 8, 16, 80), (24, 3, 3, 16, 90)):
    shape = dict(heads=heads, group=group, half=half, dim=64, block=block, rows=128)
    types |= dict.fromkeys(shape, "constexpr")
    source = ASTSource(kernel, {name: types[name] for name in kernel.arg_names}, shape)
    made = compile(source, target=GPUTarget("cuda", capability, 32))
    print(len(made.asm["cubin"]))
"""
