"""Every memory layout through random edits, held to the float64 reference; and its bytes."""

from __future__ import annotations

import gc
import importlib
import os
import random
from typing import cast

import numpy as np
import pytest
import torch
from models import last_logits, model, random_ids

from nazx_cli.context import cost
from nazx_cli.context.layouts import LAYOUTS
from nazx_cli.context.postings import PostingListLayout
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.kernels import base, choose_kernel, pytorch
from nazx_cli.kernels.lists import PostingLists
from nazx_cli.kernels.native.kernel import kernel_for
from nazx_cli.kernels.triton import index as segments
from nazx_cli.kernels.triton.support import usable
from nazx_cli.memory.estimate import TextSize

LISTED = [name for name, layout in LAYOUTS.items() if issubclass(layout, PostingListLayout)]
FORMS = (
    *LAYOUTS,
    *(f"{name}-native" for name in (*LISTED, "grams")),
    *(f"{name}-triton" for name in LISTED),
)
CPU = torch.device("cpu")


@pytest.fixture(params=FORMS)
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every layout in its portable form, and those on the compiled kernel, and on the Triton one
    in its interpreter, where there is one."""
    name, _, form = request.param.partition("-")
    monkeypatch.setenv("NAZX_NATIVE", {"": "0", "native": "1", "triton": "triton"}[form])
    if form == "native" and not has_kernel("neox-sequential", "float32"):
        pytest.skip("no compiler")
    if form == "triton" and not has_triton("neox-sequential", "float32"):
        pytest.skip("no Triton, or not in its interpreter")
    return name


def has_triton(base: str, dtype: str) -> bool:
    return usable(model(base, "inattention").config, CPU, getattr(torch, dtype))


def has_kernel(base: str, dtype: str) -> bool:
    config = model(base, "inattention").config
    return kernel_for(config, CPU, getattr(torch, dtype)) is not None


def without_interpreting(monkeypatch: pytest.MonkeyPatch, dtype: str = "float32") -> None:
    """Let the Triton kernel give any weights: for tests of what is held, where it is slow."""
    if os.environ["NAZX_NATIVE"] == "triton":
        assert has_triton("neox-sequential", dtype)  # tried before it is replaced
        weigh = importlib.import_module("nazx_cli.kernels.triton.weigh")
        monkeypatch.setattr(
            weigh, "weights", lambda query, own, s, *others: base.Attended(torch.ones_like(s), s[0])
        )


def _edit(rng: random.Random, context, ids: list[int], vocab: int) -> None:  # type: ignore[no-untyped-def]
    """One random edit, done to the context and to a plain list alike."""
    kind = rng.choice(("append", "append", "insert", "delete", "truncate"))
    new = [rng.randrange(vocab) for _ in range(rng.choice((0, 1, 1, 2, 5)))]
    at = rng.randint(0, len(ids))
    resident = rng.random() < 0.3
    if kind == "append":
        context.append(
            torch.tensor(new, dtype=torch.int64) if rng.random() < 0.5 else new, resident
        )
        ids.extend(new)
    elif kind == "insert":
        context.insert(at, new, resident)
        ids[at:at] = new
    elif kind == "delete":
        stop = min(len(ids), at + rng.choice((0, 1, 3)))
        context.delete(at, stop)
        del ids[at:stop]
    else:
        context.delete(max(len(ids) - 2, 0), len(ids))
        del ids[max(len(ids) - 2, 0) :]


@pytest.mark.parametrize("tail", (0, 4, 2048), ids="tail{}".format)
@pytest.mark.parametrize(
    ("base", "kind"),
    (("neox-sequential", "inattention"), ("llama", "inattention"), ("llama", "convolved")),
)
def test_random_edits_leave_every_layout_equal_to_the_reference(
    layout: str, base: str, kind: str, tail: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tail != 4 and os.environ["NAZX_NATIVE"] == "triton":
        pytest.skip("the interpreter is slow, and a tail of 4 is now appended to, now full")
    monkeypatch.setattr(pytorch, "_TAIL", tail)
    monkeypatch.setattr(pytorch, "_LONGEST", 4)
    monkeypatch.setattr(segments, "TAIL", tail)
    lm, rng = model(base, kind, layout=layout), random.Random(f"{base}{tail}")
    context, ids = lm.new_context(), random_ids(9, seed=8, vocab=12)
    context.append(ids)
    for _ in range(10):
        _edit(rng, context, ids, vocab=rng.choice((2, 12, 300)))
        assert context.ids.tolist() == ids
        if ids:
            want = last_logits(base, kind, ids)
            assert (lm.next_logits(context).double() - want).abs().max() < 1e-4


@pytest.mark.parametrize(
    "ids",
    ([7], [7] * 600, list(range(300)), [0, 299] * 33 + [5]),
    ids=("one", "one-distinct", "all-distinct", "few"),
)
@pytest.mark.parametrize("kind", ("inattention", "convolved"))
def test_one_token_one_distinct_token_and_all_distinct_agree_with_the_sequence(
    layout: str, kind: str, ids: list[int]
) -> None:
    lm = model("neox-parallel", kind, layout=layout)
    context = lm.new_context()
    context.append(ids, resident=True)
    want = lm.logits(ids)[-1]
    assert (lm.next_logits(context) - want).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ("inattention", "convolved"))
def test_large_contexts_agree_between_layouts_after_edits_that_drop_most_tokens(kind: str) -> None:
    ids = random_ids(5000, seed=9)
    results = []
    for layout in LAYOUTS:
        lm = model("neox-sequential", kind, layout=layout)
        context = lm.new_context()
        context.append(ids)
        lm.next_logits(context)
        context.delete(100, 4000)
        context.insert(50, [3] * 100)
        context.append([1, 2, 3])
        results.append(lm.next_logits(context))
    for result in results[1:]:
        assert (result - results[0]).abs().max() < 1e-4


def test_contexts_of_one_model_do_not_disturb_each_other(layout: str) -> None:
    lm = model("llama", "inattention", layout=layout)
    first, second = lm.new_context(), lm.new_context()
    first.append(random_ids(40, seed=10))
    before = lm.next_logits(first)
    second.append(random_ids(70, seed=11))
    lm.next_logits(second)
    assert (lm.next_logits(first) == before).all()


@pytest.mark.parametrize("kind", ("inattention", "convolved"))
def test_tokens_that_are_gone_give_their_slots_back(
    layout: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if layout not in LISTED:
        pytest.skip("no slots")
    monkeypatch.setattr(base, "_FEW_SLOTS", 3)
    lm, ids = model("neox-sequential", kind, layout=layout), random_ids(40, seed=15)
    context = lm.new_context()
    memory = cast(PostingListLayout, context.memory)
    context.append(ids)
    lm.next_logits(context)
    for start, stop, new in ((5, 30, [7]), (3, 10, [7, 299, 7]), (1, 5, [])):
        context.delete(start, stop)
        context.append(new)
        ids = [*ids[:start], *ids[stop:], *new]
        want = last_logits("neox-sequential", kind, ids)
        assert (lm.next_logits(context).double() - want).abs().max() < 1e-4
        size = TextSize.of([np.asarray(ids, np.int32)], lm.config)
        assert len(memory._index.slots) <= 1.25 * size.distinct
    context.append([8])
    want = last_logits("neox-sequential", kind, [*ids, 8])
    assert (lm.next_logits(context).double() - want).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ("inattention", "convolved"))
@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
def test_bytes_held_equal_the_formula(
    layout: str, dtype: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = model("neox-sequential", kind, dtype, layout)
    weights = torch.rand(300, generator=torch.Generator().manual_seed(12)) ** 4
    ids = torch.multinomial(weights, 20_000, replacement=True)
    without_interpreting(monkeypatch, dtype)
    context = lm.new_context()
    kernel = choose_kernel(lm.config, CPU, getattr(torch, dtype))
    width = 4 if dtype == "float32" else 2
    for new in (ids, ids[:1]):  # an append of one token grows what is there
        context.append(new, resident=True)
        lm.next_logits(context)
        size = TextSize.of([context.ids.numpy()], lm.config).as_context(kernel)
        predicted = cost.context_bytes(lm.config, layout, size, width)
        assert context.nbytes == pytest.approx(predicted, rel=0.02)


@pytest.mark.parametrize("kind", ("inattention", "convolved"))
def test_bytes_held_are_those_of_every_tensor_that_the_context_refers_to(
    layout: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_interpreting(monkeypatch)
    lm = model("neox-sequential", kind, layout=layout)
    context = lm.new_context()
    context.append(random_ids(3000, seed=13))
    lm.next_logits(context)
    context.append([1, 2])
    lm.next_logits(context)
    assert context.nbytes == _reachable_bytes(lm, context)


def _reachable_bytes(lm: LanguageModel, context: object) -> int:
    """Storage bytes of all tensors reachable from the context but not from the model."""
    weights = {p.untyped_storage().data_ptr() for p in lm.decoder.parameters()}
    seen: set[int] = set()
    storages: dict[int, int] = {}
    stack = [context]
    while stack:
        item = stack.pop()
        if id(item) in seen or item is lm.decoder or isinstance(item, type):
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(item, dict | list | tuple) or hasattr(item, "__dict__"):
            stack.extend(o for o in gc.get_referents(item) if not callable(o))
    return sum(storages.values())


def test_posting_lists_hold_every_position_once() -> None:
    for count in (0, 1, 2, 1001):
        ids = random_ids(count, seed=14, vocab=50)
        lists = PostingLists.build(torch.tensor(ids, dtype=torch.int64))
        assert len(lists) == count
        assert lists.distinct.tolist() == sorted(set(ids))
        for token in range(51):
            at = lists.distinct.tolist().index(token) if token in ids else None
            begin, end = (0, 0) if at is None else lists.offsets[at : at + 2].tolist()
            positions = lists.positions[begin:end].tolist()
            assert positions == [n for n, t in enumerate(ids) if t == token]
