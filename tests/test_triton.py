"""The Triton kernel: in Triton's interpreter by default, on a GPU with ``-m gpu``.

What is asked of every layout is in ``test_layouts.py``, where this form of two of them takes part.
"""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from checkpoints import GPT_NEOX, nazx
from models import INATTENTION, model, random_ids, relative_error
from test_native import made
from torch import Tensor

from nazx_cli.bench.engine import kernel_of
from nazx_cli.config import ModelConfig
from nazx_cli.context.cost import Size
from nazx_cli.context.native import kernel
from nazx_cli.context.native.index import ListIndex
from nazx_cli.context.native.position_lists import PositionLists
from nazx_cli.context.pairs import PairsLayout
from nazx_cli.context.triton import segments as cutting
from nazx_cli.context.triton import support
from nazx_cli.context.triton.layouts import TritonPairs, TritonPostings
from nazx_cli.context.triton.segments import WIDTHS, Segments
from nazx_cli.engine.fitting import Wish, fit
from nazx_cli.engine.language_model import load_model

CPU = torch.device("cpu")
# Of every kind of segment one that is full, one that is not, and some that come after others.
LENGTHS = (1, 300, 2, 0, 3, 16, 17, 128, 5, 1, 1, 33, 131)
SHAPES = ((1, 1, 1), (3, 3, 2), (8, 8, 8), (12, 12, 8), (24, 24, 2), (6, 2, 5), (2, 1, 32))


@pytest.fixture(params=("cpu", pytest.param("cuda", marks=pytest.mark.gpu)))
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where the kernel runs: a GPU, or Triton's interpreter."""
    pytest.importorskip("triton")
    found = torch.device(request.param)
    if found.type == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
    elif os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("the interpreter is off")
    else:
        monkeypatch.setenv("NAZX_NATIVE", "triton")
    return found


@dataclass(frozen=True)
class Problem:
    """One query and the posting lists it attends to, all on the CPU."""

    query: Tensor  # (H, D)
    s: Tensor  # (U, H)
    keys: Tensor  # (U, kv_heads, 2F), un-rotated
    lists: PositionLists
    appended: list[int]  # the list of each position that comes after those of ``lists``
    theta: float = 10000.0

    @property
    def half(self) -> int:
        return self.keys.shape[2] // 2

    def phases(self, positions: Tensor) -> Tensor:
        """(T, 2F) float32: cosines, then sines."""
        exponents = torch.arange(self.half, dtype=torch.float64) / self.half
        angles = positions.double()[:, None] * self.theta**-exponents
        return torch.cat((angles.cos(), angles.sin()), 1).float()

    def weights(self, device: torch.device) -> Tensor:
        """What the kernel gives."""
        weigh = importlib.import_module("nazx_cli.context.triton.weigh")
        held, total = Segments(device), self.lists.num_positions
        held.build(self.lists)
        for slot in self.appended:
            held.append(torch.tensor([slot], dtype=torch.int32))
        last = torch.tensor([total + len(self.appended) - 1])
        outer, inner = torch.arange(0, total + 1024, 1024), torch.arange(1024)
        found = weigh.weights(
            self.query.to(device),
            self.phases(last)[0].to(device),
            self.s.to(device),
            self.keys.transpose(1, 2).flatten(1).to(device),
            held,
            SimpleNamespace(
                outer=self.phases(outer).to(device), inner=self.phases(inner).to(device)
            ),
        )
        assert found.dtype is torch.float32
        return found.cpu()

    def expected(self) -> Tensor:
        """(U, H) float64, from keys and query turned to their positions."""
        heads, dim = self.query.shape
        total = self.lists.num_positions
        of = torch.arange(len(self.lists)).repeat_interleave(self.lists.counts)
        of = torch.cat((of, torch.tensor(self.appended, dtype=torch.int64)))
        where = torch.cat((self.lists.positions[:total], torch.arange(total, len(of))))
        last = torch.tensor([len(of) - 1])
        query = self._turned(self.query[None, :, : 2 * self.half], last)  # (1, H, 2F)
        keys = self._turned(self.keys[of], where)  # (N, kv_heads, 2F)
        keys = keys.repeat_interleave(heads // keys.shape[1], 1)
        scores = self.s.double()[of] + (query * keys).sum(-1) / dim**0.5
        return torch.zeros(len(self.lists), heads).double().index_add_(0, of, scores.softmax(0))

    def _turned(self, x: Tensor, positions: Tensor) -> Tensor:
        table = self.phases(positions).double()[:, None]
        cos, sin = table[..., : self.half], table[..., self.half :]
        a, b = x.double().chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def problem(
    heads: int,
    kv_heads: int,
    half: int,
    *,
    dtype: torch.dtype = torch.float32,
    lengths: tuple[int, ...] = LENGTHS,
    appended: int = 3,
    spread: float = 1.0,
) -> Problem:
    """A random problem: lists of ``lengths``, and positions appended to random ones of them."""
    generator = torch.Generator().manual_seed(heads + half)
    lists, slots = (
        PositionLists(),
        torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)),
    )
    lists.build(
        slots[torch.randperm(len(slots), generator=generator)].to(torch.int32), len(lengths)
    )
    return Problem(
        torch.randn(heads, 2 * half + 3, generator=generator).to(dtype) * 2,
        torch.randn(len(lengths), heads, generator=generator) * spread,
        torch.randn(len(lengths), kv_heads, 2 * half, generator=generator).to(dtype),
        lists,
        torch.randint(len(lengths), (appended,), generator=generator).tolist(),
    )


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
@pytest.mark.parametrize("lengths", ((1,), (700,), (1,) * 200), ids=("one", "long", "short"))
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
        lists, held = PositionLists(), Segments(CPU)
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


@pytest.mark.parametrize(("layout", "form"), (("postings", TritonPostings), ("pairs", TritonPairs)))
@pytest.mark.parametrize("shape", ((48, 3, 0.25), (96, 12, 0.5)), ids=str)
def test_logits_equal_those_of_the_whole_sequence(
    shape: tuple[int, int, float], layout: str, form: type, device: torch.device, tmp_path: Path
) -> None:
    folder, _ = made(tmp_path, *shape)
    lm, whole = load_model(folder, str(device), layout=layout), load_model(folder)
    assert kernel_of(lm) == "triton"
    context = lm.new_context()
    assert type(context.memory) is form
    ids: list[int] = []
    for count, vocab in ((1, 300), (40, 5), (1, 300)):
        new = random_ids(count, seed=len(ids), vocab=vocab)
        context.append(new)
        ids += new
        assert (lm.next_logits(context).cpu() - whole.logits(ids)[-1]).abs().max() < 1e-4
    context.insert(7, [3, 3, 299])
    context.delete(0, 2)
    ids[7:7] = [3, 3, 299]
    del ids[:2]
    assert (lm.next_logits(context).cpu() - whole.logits(ids)[-1]).abs().max() < 1e-4


def test_bfloat16_is_as_close_to_float32_as_the_portable_form(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = made(tmp_path, 96, 12, 0.5)
    ids = random_ids(300, seed=3, vocab=20)
    want = load_model(folder).logits(ids)[-1]
    errors = []
    for off in (False, True):
        if off:
            monkeypatch.setenv("NAZX_NATIVE", "0")
        lm = load_model(folder, str(device), "bfloat16", layout="pairs")
        assert kernel_of(lm) == ("portable" if off else "triton")
        context = lm.new_context()
        context.append(ids)
        errors.append(relative_error(lm.next_logits(context).cpu(), want))
    assert errors[0] < 0.04 and errors[0] < 1.5 * errors[1]


def test_appending_cuts_the_lists_anew_only_when_the_tail_is_full(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "TAIL", 3)
    lm = load_model(made(tmp_path, 48, 3, 0.25)[0], str(device), layout="postings")
    context, lengths = lm.new_context(), []
    context.append(random_ids(50, seed=4), resident=True)
    memory = context.memory
    assert isinstance(memory, TritonPostings)
    memory.sync(context.tokens)
    build = memory._segments.build

    def counted(lists: PositionLists) -> None:
        lengths.append(lists.num_positions)
        build(lists)

    monkeypatch.setattr(memory._segments, "build", counted)
    for token in range(8):
        context.append([token])
        memory.sync(context.tokens)
    assert lengths == [54, 58]
    context.delete(57, 58)
    context.append([9])
    memory.sync(context.tokens)
    assert lengths == [54, 58, 58]


@pytest.mark.parametrize("layout", ("postings", "pairs"))
def test_tokens_that_are_gone_give_their_rows_back(
    layout: str, device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ListIndex, "wasteful", lambda index: bool((index.lists.counts == 0).any()))
    folder, _ = made(tmp_path, 48, 3, 0.25)
    lm, ids = load_model(folder, str(device), layout=layout), random_ids(90, seed=5)
    context = lm.new_context()
    context.append(ids)
    lm.next_logits(context)
    context.delete(20, 80)
    context.append([7])
    left = [*ids[:20], *ids[80:], 7]
    want = load_model(folder).logits(left)[-1]
    assert (lm.next_logits(context).cpu() - want).abs().max() < 1e-4
    assert isinstance(context.memory, TritonPostings)
    assert context.memory._states.count == len(set(left))


def test_a_memory_limit_counts_the_form_that_will_be_used(device: torch.device) -> None:
    folder = model("neox-sequential", "inattention").folder
    size = Size(3000, 200)
    chosen = fit(folder, Wish(str(device), "float32", None, "pairs", 1 << 30, size)).plan
    assert chosen.estimate.size.triton and not chosen.estimate.size.native


def test_in_the_interpreter_the_kernel_is_used_only_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    config = model("neox-sequential", "inattention").config
    for asked in ("0", "1", ""):
        monkeypatch.setenv("NAZX_NATIVE", asked)
        for name in ("cpu", "cuda", "mps"):
            assert not support.usable(config, torch.device(name), torch.float32)


@pytest.mark.parametrize("fault", ("missing", "raises", "wrong"))
def test_without_a_kernel_that_works_the_layout_is_the_portable_one(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(*given: object) -> Tensor:
        raise RuntimeError("no such architecture")

    def wrong(query: Tensor, own: Tensor, s: Tensor, *others: object) -> Tensor:
        return torch.full_like(s, float("nan"))

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("NAZX_NATIVE", "triton")
    monkeypatch.setattr(kernel, "compile_library", lambda *given: None)
    kernel._compiled.cache_clear()
    support._works.cache_clear()
    module = {"missing": None, "raises": SimpleNamespace(weights=raising)}.get(
        fault, SimpleNamespace(weights=wrong)
    )
    monkeypatch.setitem(sys.modules, "nazx_cli.context.triton.weigh", module)
    try:
        lm = model("neox-sequential", "inattention", layout="pairs")
        assert type(lm.new_context().memory) is PairsLayout
        assert kernel_of(lm) == "portable"
    finally:
        kernel._compiled.cache_clear()
        support._works.cache_clear()


def test_models_that_the_kernel_does_not_fit_do_not_ask_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(support, "_works", lambda shape, device: True)
    cuda, fits = torch.device("cuda"), model("neox-sequential", "inattention").config
    bare = ModelConfig.from_dict(nazx({**GPT_NEOX, "rotary_pct": 0.0}, INATTENTION))
    assert support.usable(fits, cuda, torch.bfloat16)
    assert not support.usable(fits, CPU, torch.float32)
    assert not support.usable(fits, cuda, torch.float64)
    assert not support.usable(model("llama", "windowed").config, cuda, torch.float32)
    assert not support.usable(bare, cuda, torch.float32)
    monkeypatch.setenv("NAZX_NATIVE", "0")
    assert not support.usable(fits, cuda, torch.float32)


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
from nazx_cli.engine.fitting import Wish, fit
from nazx_cli.engine.language_model import load_model
lm = load_model(os.environ["FOLDER"])
context = lm.new_context()
context.append([1, 2, 3])
lm.next_logits(context)
print("triton" in sys.modules)
"""


def test_the_kernel_compiles_for_cuda(tmp_path: Path) -> None:
    """By Triton's compiler, which needs no GPU: the interpreter is laxer than it is."""
    triton = pytest.importorskip("triton")
    if not (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas").exists():
        pytest.skip("no assembler for CUDA")
    assert len(_run(_COMPILE, TRITON_CACHE_DIR=str(tmp_path)).split()) == 2


_COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from nazx_cli.context.triton.weigh import weigh_segments as kernel

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
