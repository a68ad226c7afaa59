"""Layouts on the Triton kernel, on a GPU or in the interpreter, and doing without it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from checkpoints import GPT_NEOX, nazx
from models import INATTENTION, model, random_ids, relative_error
from test_native import made
from torch import Tensor

from nazx_cli.bench.models import kernel_of
from nazx_cli.config import ModelConfig
from nazx_cli.context.layouts import LAYOUTS
from nazx_cli.context.postings import PairsLayout, PostingsLayout
from nazx_cli.engine.fitting import plan_here
from nazx_cli.engine.language_model import load_model
from nazx_cli.kernels.lists import ListIndex, PositionLists
from nazx_cli.kernels.native import kernel
from nazx_cli.kernels.triton import index as cutting
from nazx_cli.kernels.triton import support
from nazx_cli.kernels.triton.index import TritonIndex
from nazx_cli.memory.estimate import TextSize
from nazx_cli.memory.plan import LoadOptions

CPU = torch.device("cpu")


@pytest.mark.parametrize("layout", ("postings", "pairs", "tables"))
@pytest.mark.parametrize("shape", ((48, 3, 0.25), (96, 12, 0.5)), ids=str)
def test_logits_equal_those_of_the_whole_sequence(
    shape: tuple[int, int, float], layout: str, device: torch.device, tmp_path: Path
) -> None:
    folder, _ = made(tmp_path, *shape)
    lm, whole = load_model(folder, str(device), layout=layout), load_model(folder)
    assert kernel_of(lm) == "triton"
    context = lm.new_context()
    assert type(context.memory) is LAYOUTS[layout] and context.memory.kernel == "triton"
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
    assert isinstance(memory, PostingsLayout) and isinstance(memory._index, TritonIndex)
    memory.sync(context.tokens)
    segments = memory._index._segments
    build = segments.build

    def counted(lists: PositionLists) -> None:
        lengths.append(lists.num_positions)
        build(lists)

    monkeypatch.setattr(segments, "build", counted)
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
    assert isinstance(context.memory, PostingsLayout) and context.memory.kernel == "triton"
    assert context.memory._states.count == len(set(left))


def test_a_memory_limit_counts_the_form_that_will_be_used(device: torch.device) -> None:
    config = model("neox-sequential", "inattention").config
    options = LoadOptions(str(device), "float32", layout="pairs", limit=1 << 30, ctx=0)
    chosen = plan_here(config, TextSize(3000, 200), options)
    assert chosen.kernel == "triton"


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
    monkeypatch.setitem(sys.modules, "nazx_cli.kernels.triton.weigh", module)
    try:
        lm = model("neox-sequential", "inattention", layout="pairs")
        memory = lm.new_context().memory
        assert type(memory) is PairsLayout and memory.kernel == "torch"
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
