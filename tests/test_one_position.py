"""One further position in one compiled call, held to PyTorch's path and to the slow reference."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import nazx, write_checkpoint
from models import BASES, FULL, WINDOWED, model, new_folder, random_ids, reference, relative_error

from nazx_cli.bench.results import on_threads
from nazx_cli.context.context import Context
from nazx_cli.engine.language_model import LanguageModel, load_model
from nazx_cli.kernels.native.products import multiplies
from nazx_cli.model.one_position import OnePosition

pytestmark = [
    pytest.mark.usefixtures("instructions"),
    pytest.mark.skipif(not multiplies(), reason="no compiler, or no vectors that it has code for"),
]

EXACT, ROUNDED = 2e-5, 0.03
SHAPES: dict[str, dict[str, Any]] = {
    "even": {},
    "odd": {
        "hidden_size": 39,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 14,
        "intermediate_size": 37,
    },
    "grouped": {"num_attention_heads": 14, "num_key_value_heads": 2, "head_dim": 8},
    "long heads": {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 80},
}


@cache
def folder(shape: str, kind: str) -> Path:
    attention = WINDOWED if kind == "windowed" else FULL
    return write_checkpoint(new_folder(), nazx(BASES["llama"], attention, **SHAPES[shape]))


def native(monkeypatch: pytest.MonkeyPatch, on: bool) -> None:
    monkeypatch.setenv("NAZX_NATIVE", "1" if on else "0")


def answers(lm: LanguageModel) -> list[torch.Tensor]:
    """Logits on the way through a conversation: short of the window, past it, taken back, ended
    otherwise, and past it again."""
    context, ids = lm.new_context(), random_ids(60, seed=31)
    found = []

    def say(*tokens: int) -> None:
        for token in tokens:
            context.append([token])
            found.append(lm.next_logits(context))

    context.append(ids[:5])
    lm.next_logits(context)
    say(*ids[5:30])
    context.delete(24, 30)
    say(*ids[40:44])
    context.delete(2, len(context))
    say(*ids[44:60])
    return found


def both(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch, threads: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """What compiled code gives, and PyTorch."""
    native(monkeypatch, True)
    assert OnePosition(lm.decoder).step() is not None
    with on_threads(threads):
        ours = answers(lm)
    native(monkeypatch, False)
    assert OnePosition(lm.decoder).step() is None
    return torch.stack(ours), torch.stack(answers(lm))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ("windowed", "full"))
def test_float32_equals_pytorch(shape: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = both(load_model(folder(shape, kind)), monkeypatch)
    assert relative_error(ours, theirs) < EXACT


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", ("windowed", "full"))
def test_every_way_through_a_block_equals_the_reference(
    base: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    native(monkeypatch, True)
    lm, ids = model(base, kind), random_ids(20, seed=32)
    context = lm.new_context()
    context.append(ids[:-1])
    lm.next_logits(context)
    context.append(ids[-1:])
    assert OnePosition(lm.decoder).step() is not None
    want = reference(base, kind).logits(ids)[-1]
    assert relative_error(lm.next_logits(context), want) < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ("windowed", "full"))
def test_bfloat16_is_no_further_from_float32_than_pytorch(
    shape: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = folder(shape, kind)
    ours, theirs = both(load_model(where, dtype="bfloat16"), monkeypatch)
    want = torch.stack(answers(load_model(where)))
    assert relative_error(ours, want) < max(relative_error(theirs, want), 0.005)
    assert relative_error(ours, theirs) < ROUNDED


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
@pytest.mark.parametrize("quantize", ("int8", "nf4"))
def test_quantized_weights_are_multiplied_as_they_are(
    quantize: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bitsandbytes")
    native(monkeypatch, True)
    # Rows of 1 and of 3 blocks of nf4, and so half a line of memory at their ends.
    sizes = {"hidden_size": 64, "intermediate_size": 192, "head_dim": 32}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2}
    where = write_checkpoint(new_folder(), nazx(BASES["llama"], WINDOWED, **sizes, **heads))
    ours, theirs = both(load_model(where, dtype=dtype, quantize=quantize), monkeypatch)
    assert relative_error(ours, theirs) < (EXACT if dtype == "float32" else ROUNDED)


@pytest.mark.parametrize("threads", (2, 5))
@pytest.mark.parametrize("shape", ("even", "odd", "grouped"))
def test_threads_share_the_work_without_changing_it(
    shape: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = both(load_model(folder(shape, "windowed")), monkeypatch, threads)
    assert relative_error(ours, theirs) < EXACT


def test_weights_that_are_replaced_are_those_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    native(monkeypatch, True)
    lm = load_model(folder("even", "full"))
    answers(lm)
    block = lm.decoder.layers[1]
    with torch.no_grad():
        block.mlp.down.weight = torch.nn.Parameter(block.mlp.down.weight * 3)
    ours, theirs = both(lm, monkeypatch)
    assert relative_error(ours, theirs) < EXACT


def test_what_compiled_code_does_not_know_is_left_to_pytorch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    native(monkeypatch, True)
    assert OnePosition(load_model(folder("even", "full"), dtype="float16").decoder).step() is None
    lm = load_model(folder("even", "full"))
    layer = lm.decoder.layers[0].out
    layer.weight = torch.nn.Parameter(layer.weight.detach().t().contiguous().t())
    assert OnePosition(lm.decoder).step() is None
    assert torch.isfinite(torch.stack(answers(lm))).all()


def test_positions_alone_hold_nothing_but_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for on in (True, False):
        native(monkeypatch, on)
        lm = load_model(folder("even", "windowed"))
        context: Context = lm.new_context()
        for token in random_ids(30, seed=33):
            context.append([token])
            lm.next_logits(context)
        sizes.append(context.nbytes)
    assert sizes[0] == sizes[1]
