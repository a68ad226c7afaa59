"""Long prompts through int8 weights, on a processor that multiplies int8: states are rounded."""

from __future__ import annotations

import pytest
import torch
from models import random_ids, relative_error
from quantized_models import quantized
from test_quantize import EXACT, ROUNDED, wanted
from torch import Tensor

from nazx_cli.quantization import int8
from nazx_cli.quantization.int8 import MANY, Int8Linear, multiplies_integers

ROUNDING = 0.012  # of activations to int8: a half of 1/127 of the largest, in every factor

rounds = pytest.mark.skipif(
    not multiplies_integers(), reason="this processor does not multiply int8 with int8"
)


def layer_of(rows: int, columns: int, dtype: torch.dtype, biased: bool = False) -> Int8Linear:
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randint(-127, 128, (rows, columns), generator=generator, dtype=torch.int8)
    bias = torch.nn.Parameter(torch.randn(rows, generator=generator).to(dtype), False)
    scale = torch.rand(rows, generator=generator) + 0.1
    return Int8Linear(weight, scale, bias if biased else None, dtype)


def states(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Rows of very different lengths, as the states of a prompt are."""
    generator = torch.Generator().manual_seed(columns)
    x = torch.randn(rows, columns, generator=generator)
    return (x * torch.logspace(-3, 3, rows)[:, None]).to(dtype)


def exact(layer: Int8Linear, x: Tensor) -> Tensor:
    """(T, out) float64."""
    weight = layer.weight.double() * layer.factor.double()[:, None]
    out = x.double() @ weight.t()
    return out if layer.bias is None else out + layer.bias.double()


def row_errors(got: Tensor, want: Tensor) -> Tensor:
    """(T,) of each row: the norm of the difference over the norm of what is wanted."""
    return (got.double() - want).norm(dim=1) / want.norm(dim=1).clamp(min=1e-30)


@rounds
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("rows", (MANY, MANY + 1, 300))
@pytest.mark.parametrize("shape", ((96, 33), (33, 192), (1100, 1024), (130, 4099)), ids=str)
def test_every_row_of_a_long_prompt_stays_near_the_exact_product(
    shape: tuple[int, int], rows: int, dtype: torch.dtype
) -> None:
    layer = layer_of(*shape, dtype)
    x = states(rows, shape[1], dtype)
    got = layer(x)
    assert got.dtype == dtype
    errors = row_errors(got, exact(layer, x))
    assert errors.max() < 2 * ROUNDING
    assert errors.median() > EXACT  # or nothing was rounded, and this tests nothing
    biased = layer_of(*shape, dtype, biased=True)
    assert relative_error(biased(x), exact(biased, x)) < ROUNDING


@rounds
@pytest.mark.parametrize("count", (1, 3, 20))
def test_columns_that_stand_out_take_no_bits_from_the_others(count: int) -> None:
    layer = layer_of(64, 512, torch.float32)
    where = torch.randperm(512, generator=torch.Generator().manual_seed(1))[:count]
    layer.weight[:, where] = 0  # so that all of the product comes from the others
    x = torch.randn(MANY, 512, generator=torch.Generator().manual_seed(2))
    x[:, where] = 3000.0
    assert row_errors(layer(x), exact(layer, x)).max() < 2 * ROUNDING
    layer.weight[:, where] = 5
    assert row_errors(layer(x), exact(layer, x)).max() < ROUNDING / 10


@rounds
def test_a_row_that_is_not_finite_spoils_no_other_and_zeros_stay_zeros() -> None:
    layer = layer_of(40, 96, torch.float32)
    x = states(MANY, 96, torch.float32)
    x[1] = 0
    for value in (float("nan"), float("inf")):
        x[2, 5] = value
        got = layer(x)
        assert not got[2].isfinite().any()
        assert not got[1].any()
        others = [row for row in range(MANY) if row not in (1, 2)]
        assert row_errors(got[others], exact(layer, x[others])).max() < 2 * ROUNDING
    assert not layer(torch.zeros(MANY, 96)).any()


def test_what_is_not_a_long_prompt_is_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of(64, 96, torch.float32)
    x = states(MANY, 96, torch.float32)
    want = exact(layer, x)
    assert row_errors(layer(x[: MANY - 1]), want[: MANY - 1]).max() < EXACT
    assert row_errors(layer.product(x, 8, 40), want[:, 8:40]).max() < EXACT  # derived tables
    learning = x.clone().requires_grad_()
    out = layer(learning)
    out.sum().backward()
    assert row_errors(out.detach(), want).max() < EXACT
    assert relative_error(learning.grad, layer.dense().sum(0).expand_as(x)) < EXACT
    monkeypatch.setattr(int8, "multiplies_integers", lambda: False)  # another processor
    assert row_errors(layer(x), want).max() < EXACT


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
@pytest.mark.parametrize("attention", ("inattention", "windowed", "full"))
@pytest.mark.parametrize("base", ("neox-sequential", "llama"))
def test_logits_of_a_long_prompt_stay_near_those_of_the_dequantized_weights(
    base: str, attention: str, dtype: str
) -> None:
    lm = quantized(base, attention, "int8", dtype, wide=True)
    ids = random_ids(MANY + 9, seed=31)
    want = wanted(lm, ids)
    assert relative_error(lm.logits(ids), want) < 2 * ROUNDED
    context = lm.new_context()
    context.append(ids)
    lm.next_logits(context)
    context.append(ids[:3])  # what follows a prompt sees its rounded states, and is not rounded
    want = wanted(lm, ids + ids[:3])[-1]
    assert relative_error(lm.next_logits(context), want) < 4 * ROUNDED
