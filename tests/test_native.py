"""The compiled kernel: every shape of head, its lists under edits, and doing without it."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from checkpoints import GPT_NEOX, nazx, write_checkpoint
from models import INATTENTION, random_ids, relative_error

from nazx_cli.context.context import TokenSequence
from nazx_cli.context.layouts import LAYOUTS
from nazx_cli.context.postings import PairsLayout
from nazx_cli.engine.language_model import LanguageModel, load_model
from nazx_cli.kernels.lists import ListIndex, PositionLists
from nazx_cli.kernels.native import compiler, kernel
from nazx_cli.kernels.native.index import NativeIndex

needs_compiler = pytest.mark.skipif(compiler.find_compiler() is None, reason="no compiler")

# hidden size, heads, rotary share: 4, 8 and 16 lanes full and not, blocks of heads, F not a power
# of two, widths that the products in C take and do not, all dimensions rotated.
SHAPES = (
    (32, 4, 0.5),
    (48, 3, 0.25),
    (32, 8, 0.5),
    (80, 5, 0.75),
    (96, 12, 0.5),
    (64, 16, 1.0),
    (120, 20, 1.0),
    (192, 24, 0.25),
    (40, 2, 0.3),
    (16, 1, 0.25),
)


def loaded(folder: Path, dtype: str = "float32", layout: str = "pairs") -> LanguageModel:
    return load_model(folder, dtype=dtype, layout=layout)


def made(tmp_path: Path, hidden: int, heads: int, share: float) -> tuple[Path, dict[str, Any]]:
    sizes = {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "rotary_pct": share,
        "intermediate_size": 32,
    }
    config = nazx({**GPT_NEOX, **sizes}, INATTENTION)
    return write_checkpoint(tmp_path / f"{hidden}-{heads}", config), config


def portable_pairs(lm: LanguageModel) -> bool:
    memory = lm.new_context().memory
    return type(memory) is PairsLayout and memory.kernel == "torch"


@needs_compiler
@pytest.mark.parametrize("layout", ("postings", "pairs", "tables"))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logits_equal_those_of_the_whole_sequence_for_every_shape_of_head(
    shape: tuple[int, int, float], layout: str, tmp_path: Path
) -> None:
    lm = loaded(made(tmp_path, *shape)[0], layout=layout)
    context = lm.new_context()
    ids: list[int] = []
    for count, vocab in ((1, 300), (40, 5), (30, 300), (1, 300)):
        new = random_ids(count, seed=len(ids), vocab=vocab)
        context.append(new)
        ids += new
        assert (lm.next_logits(context) - lm.logits(ids)[-1]).abs().max() < 1e-4
    assert type(context.memory) is LAYOUTS[layout] and context.memory.kernel == "native"


@needs_compiler
def test_bfloat16_is_as_close_to_float32_as_the_portable_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = made(tmp_path, 96, 12, 0.5)
    ids = random_ids(700, seed=3, vocab=60)
    want = loaded(folder).logits(ids)[-1]
    errors = {}
    for native in ("0", "1"):
        monkeypatch.setenv("NAZX_NATIVE", native)
        lm = loaded(folder, "bfloat16")
        context = lm.new_context()
        context.append(ids)
        errors[native] = relative_error(lm.next_logits(context), want)
    assert errors["1"] < 0.04
    assert errors["1"] < 1.5 * errors["0"]


@needs_compiler
@pytest.mark.parametrize(("dtype", "off"), (("float32", 1e-5), ("bfloat16", 0.02)))
def test_several_threads_give_what_one_gives(
    dtype: str, off: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_LEAST_WORK", 50)
    lm = loaded(made(tmp_path, 96, 12, 0.5)[0], dtype)
    context = lm.new_context()
    context.append(random_ids(3000, seed=4))
    alone = lm.next_logits(context)
    try:
        torch.set_num_threads(3)
        assert len(kernel._shares(context.memory._index.lists)) == 3  # type: ignore[attr-defined]
        together = lm.next_logits(context)
    finally:
        torch.set_num_threads(1)
    assert (together - alone).abs().max() < off


def test_lists_follow_random_edits_like_a_plain_list() -> None:
    rng = random.Random(6)
    for _ in range(40):
        lists, slots = PositionLists(), [rng.randrange(5) for _ in range(rng.choice((0, 1, 9)))]
        lists.build(torch.tensor(slots, dtype=torch.int32), 5)
        for _ in range(12):
            kind = rng.choice(("end", "one", "middle", "remove"))
            new = [rng.randrange(7) for _ in range(1 if kind == "one" else rng.randrange(6))]
            if kind == "remove":
                start = rng.randint(0, len(slots))
                stop = rng.randint(start, len(slots))
                lists.remove(start, stop)
                del slots[start:stop]
            else:
                at = rng.randint(0, len(slots)) if kind == "middle" else len(slots)
                lists.shift(at, len(new))
                lists.add(at, torch.tensor(new, dtype=torch.int32), 7)
                slots[at:at] = new
            found = [
                sorted(lists.positions[int(a) : int(b)].tolist())
                for a, b in zip(lists.offsets, lists.offsets[1:], strict=False)
            ]
            want = [[i for i, s in enumerate(slots) if s == u] for u in range(len(found))]
            assert found == want and lists.num_positions == len(slots)


def test_a_model_without_the_kernel_gets_the_portable_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = made(tmp_path, 32, 4, 0.5)
    monkeypatch.setenv("NAZX_NATIVE", "0")
    assert portable_pairs(loaded(folder))


@pytest.mark.parametrize("compiler_name", ("false", "there-is-no-such-compiler"))
def test_a_compiler_that_fails_or_is_missing_leaves_the_portable_layout(
    compiler_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler_name)
    monkeypatch.setenv("NAZX_KERNELS", str(tmp_path / "kernels"))
    kernel._compiled.cache_clear()
    try:
        folder, _ = made(tmp_path, 32, 4, 0.5)
        assert portable_pairs(loaded(folder))
        assert not list((tmp_path / "kernels").glob("*.so"))
    finally:
        kernel._compiled.cache_clear()


@needs_compiler
def test_the_library_is_compiled_once_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAZX_KERNELS", str(tmp_path / "kernels"))
    source = tmp_path / "answer.c"
    source.write_text("int answer(void) { return ANSWER; }\n")
    for value in (42, 43, 42):
        library = compiler.compile_library(source, {"ANSWER": value}, ["answer"])
        assert library is not None and library.answer() == value
    assert len(list((tmp_path / "kernels").iterdir())) == 2


@needs_compiler
def test_what_a_killed_process_left_is_swept_and_what_is_being_made_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAZX_KERNELS", str(tmp_path))
    left, fresh = (tmp_path / f"making-{name}.so" for name in ("left", "fresh"))
    for path in (left, fresh):
        path.touch()
    os.utime(left, (0, 0))
    source = tmp_path / "one.c"
    source.write_text("int one(void) { return 1; }")
    library = compiler.compile_library(source, {}, ("one",))
    assert library is not None and library.one() == 1
    assert fresh.exists() and not left.exists()
    assert len([*tmp_path.glob("*.so")]) == 2


@needs_compiler
def test_an_edit_in_the_middle_keeps_the_index_and_its_tables(tmp_path: Path) -> None:
    lm = loaded(made(tmp_path, 96, 12, 0.5)[0])
    context, fresh = lm.new_context(), lm.new_context()
    ids = random_ids(2000, seed=7)
    context.append(ids, resident=True)
    lm.next_logits(context)
    memory = context.memory
    assert isinstance(memory, PairsLayout) and memory.kernel == "native"
    index, built = cast(ListIndex, memory._index), list[int]()
    index.lists.build = lambda slots, count: built.append(len(slots))  # type: ignore[method-assign]
    context.delete(100, 400)
    context.insert(50, [1, 2, 3], resident=True)
    del ids[100:400]
    ids[50:50] = [1, 2, 3]
    got = lm.next_logits(context)
    assert built == []
    fresh.append(ids, resident=True)
    assert (got - lm.next_logits(fresh)).abs().max() < 1e-5


def test_many_edits_between_two_tokens_end_in_one_new_index(tmp_path: Path) -> None:
    lm = loaded(made(tmp_path, 32, 4, 0.5)[0])
    index = NativeIndex(lm.config, torch.device("cpu"), torch.float32)
    tokens = TokenSequence()
    tokens.insert(0, torch.tensor(random_ids(500, seed=8), dtype=torch.int32), True)
    index.sync(tokens)
    for at in range(30):
        index.edited(at * 3, 1, 0)
        tokens.delete(at * 3, at * 3 + 1)
    index.sync(tokens)
    assert index.lists.num_positions == len(tokens) == 470
    for slot, token in enumerate(index.slots.known.tolist()):
        a, b = index.lists.offsets[slot : slot + 2].tolist()
        held = sorted(index.lists.positions[a:b].tolist())
        assert held == torch.nonzero(tokens.slice(0, 470) == token).flatten().tolist()
