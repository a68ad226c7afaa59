"""Quantized weights: their products and logits, held to the dequantized reference."""

from __future__ import annotations

import json
from typing import Any

import bitsandbytes
import pytest
import torch
from checkpoints import random_tensors
from models import BASES, checkpoint, random_ids, relative_error
from quantized_models import quantized
from reference import Reference
from torch import Tensor

from nazx_cli.checkpoint.recipes import recipes
from nazx_cli.config import ModelConfig
from nazx_cli.context.layouts import LAYOUTS
from nazx_cli.engine.language_model import LanguageModel, load_model
from nazx_cli.errors import UsageError
from nazx_cli.kernels.native.products import multiplies
from nazx_cli.model.layers import QuantizedLinear, dense_weight
from nazx_cli.quantization.cost import KINDS, linear_bytes
from nazx_cli.quantization.int8 import Int8Linear
from nazx_cli.quantization.nf4 import Nf4Linear, TiledNf4Linear
from nazx_cli.quantization.piecewise import tile, untile
from nazx_cli.quantization.quantize import quantize_linear

KIND_IDS = ("inattention", "windowed", "full")
EXACT = 1e-5  # float32 against float64, relative
ROUNDED = 0.03  # bfloat16 against float64: what the unquantized engine has too


def wanted(lm: LanguageModel, ids: list[int]) -> Tensor:
    """(T, V) float64 logits of the matrices that the quantized layers stand for."""
    key = (str(lm.folder), lm.quantization, lm.dtype, tuple(ids))
    if key not in _WANTED:
        _WANTED[key] = dequantized(lm).logits(ids)
    return _WANTED[key]


_WANTED: dict[tuple[object, ...], Tensor] = {}


def dequantized(lm: LanguageModel) -> Reference:
    """The float64 decoder on the matrices that the quantized layers stand for."""
    config = json.loads((lm.folder / "config.json").read_text())
    tensors = random_tensors(config)
    for part in recipes(lm.config):
        if part.is_block_matrix:
            layer = lm.decoder.get_submodule(part.parameter.removesuffix(".weight"))
            dense = dense_weight(layer).float()
            tensors.update(taken_apart(lm.config, part.parameter, dense, part.sources))
        elif lm.dtype == "bfloat16":
            tensors |= {name: tensors[name].bfloat16() for name, _ in part.sources}
    return Reference(config, tensors)


def taken_apart(
    config: ModelConfig, parameter: str, dense: Tensor, sources: tuple[tuple[str, Any], ...]
) -> dict[str, Tensor]:
    """A stacked matrix as the checkpoint's own tensors."""
    if parameter.endswith("qkv.weight") and config.family == "gpt_neox":
        by_kind = dense.view(3, config.num_heads, config.head_dim, -1)
        return {sources[0][0]: by_kind.transpose(0, 1).reshape(dense.shape)}
    pieces = dense.split([shape[0] for _, shape in sources])
    return {name: piece for (name, _), piece in zip(sources, pieces, strict=True)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", KIND_IDS)
@pytest.mark.parametrize("base", BASES)
def test_float32_logits_are_those_of_the_dequantized_weights(
    base: str, attention: str, kind: str
) -> None:
    lm = quantized(base, attention, kind, "float32")
    ids = random_ids(20, seed=20)
    want = wanted(lm, ids)
    assert relative_error(lm.logits(ids), want) < EXACT
    context = lm.new_context()
    context.append(ids[:-3])
    lm.next_logits(context)
    context.append(ids[-3:])
    assert relative_error(lm.next_logits(context), want[-1]) < EXACT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", ("neox-sequential", "llama"))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_derives_its_tables_from_the_dequantized_weights(
    layout: str, base: str, kind: str
) -> None:
    lm = quantized(base, "inattention", kind, "float32")
    lm = LanguageModel(lm.name, lm.decoder, lm.folder, layout)
    context, ids = lm.new_context(), random_ids(36, seed=21, vocab=14)
    context.append(ids[:20], resident=True)
    lm.next_logits(context)
    context.append(ids[20:])
    context.delete(5, 12)
    del ids[5:12]
    assert relative_error(lm.next_logits(context), wanted(lm, ids)[-1]) < EXACT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", KIND_IDS)
@pytest.mark.parametrize("base", ("neox-sequential", "llama"))
def test_bfloat16_and_its_fused_products_stay_near_the_dequantized_weights(
    base: str, attention: str, kind: str
) -> None:
    lm = quantized(base, attention, kind, "bfloat16", wide=True)
    ids = random_ids(16, seed=22)
    want = wanted(lm, ids)
    assert relative_error(lm.logits(ids), want) < ROUNDED
    for layout in lm.layouts:
        same = LanguageModel(lm.name, lm.decoder, lm.folder, layout)
        context = same.new_context()
        context.append(ids)
        assert relative_error(same.next_logits(context), want[-1]) < 2 * ROUNDED


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("native", ("0", "1"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ((1, 1), (7, 5), (33, 48), (96, 192), (1100, 1024)), ids=str)
def test_products_of_any_rows_equal_those_with_the_dense_matrix(
    shape: tuple[int, int],
    kind: str,
    dtype: torch.dtype,
    native: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NAZX_NATIVE", native)
    generator = torch.Generator().manual_seed(23)
    weight = torch.rand(shape, generator=generator) - 0.3
    layer = quantize_linear(weight, None, kind, dtype, "cpu")
    dense, rows = layer.dense(), shape[0]
    assert dense.dtype == dtype
    assert relative_error(dense, weight) < (0.02 if kind == "int8" else 0.12)
    for start, stop in ((0, rows), (rows // 3, rows), (rows // 3, rows // 3 + 1), (32, 64)):
        if stop > rows:
            continue
        assert torch.equal(layer.dense(start, stop), dense[start:stop])
        for count in (1, 3, 6, 20):
            x = (torch.rand(count, shape[1], generator=generator) - 0.3).to(dtype)
            want = x.double() @ dense[start:stop].double().t()
            got = layer.product(x, start, stop)
            assert got.dtype == dtype
            scale = (x.double().abs() @ dense[start:stop].double().abs().t()).max()
            limit = 1e-6 if dtype == torch.float32 else 0.01
            assert (got.double() - want).abs().max() < limit * scale


@pytest.mark.parametrize("kind", KINDS)
def test_products_by_the_library_as_on_cuda_agree_with_the_dense_matrix(kind: str) -> None:
    generator = torch.Generator().manual_seed(24)
    weight = torch.randn(96, 128, generator=generator)
    layer = quantize_linear(weight, None, kind, torch.float32, "cpu")
    assert isinstance(layer, Int8Linear | Nf4Linear)
    for count in (1, 5):
        x = torch.randn(count, 128, generator=generator)
        x[0, 3] = 40  # an outlier, which LLM.int8() keeps apart
        got = layer._by_library(x, 16, 80)
        assert got is not None
        # Activations are rounded to 8 bits in int8, not at all in nf4.
        limit = 0.02 if kind == "int8" else 1e-5
        assert relative_error(got, x @ layer.dense(16, 80).t()) < limit


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape", ((1, 1), (3, 7), (5, 31), (33, 48), (64, 64), (300, 4100)), ids=str
)
def test_bytes_of_a_layer_are_those_of_the_formula(shape: tuple[int, int], kind: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        layer = quantize_linear(torch.ones(shape), None, kind, dtype, "cpu")
        held = sum(buffer.untyped_storage().nbytes() for buffer in layer.buffers())
        # The CPU's kernel takes scales of 16 bits, and no others are kept beside them.
        spared = 2 * layer.absmax.numel() if isinstance(layer, TiledNf4Linear) else 0
        assert held == linear_bytes(*shape, kind) - spared


def test_tiling_moves_every_weight_and_brings_it_back() -> None:
    generator = torch.Generator().manual_seed(25)
    standard = torch.randint(256, (96, 40), generator=generator).to(torch.uint8)
    tiled = tile(standard)
    assert not torch.equal(tiled, standard)
    assert torch.equal(untile(tiled), standard)
    # Row 16 + r of a group lies in the high half, two bytes for each pair of columns.
    assert tiled[32].view(-1)[2 * 5] & 15 == standard[32 + 5, 0] >> 4
    assert tiled[32].view(-1)[2 * 5 + 1] >> 4 == standard[32 + 16 + 5, 0] & 15


def test_rows_of_zeros_stay_zeros() -> None:
    weight = torch.zeros(64, 64)
    weight[5] = 1
    for kind in KINDS:
        assert torch.equal(
            quantize_linear(weight, None, kind, torch.float32, "cpu").dense(), weight
        )


def test_blocks_are_quantized_and_embeddings_head_and_norms_keep_the_compute_type() -> None:
    for dtype in ("float32", "bfloat16"):
        for base in ("neox-sequential", "llama"):
            decoder = quantized(base, "windowed", "nf4", dtype).decoder
            names = [n for n, m in decoder.named_modules() if isinstance(m, QuantizedLinear)]
            assert len(names) == 3 * 4
            assert all(name.startswith("blocks.") for name in names)
            assert {str(p.dtype) for p in decoder.parameters()} == {f"torch.{dtype}"}
            assert str(decoder.head.weight.dtype) == f"torch.{dtype}"


@pytest.mark.parametrize("native", ("0", "1"))
def test_nf4_is_tiled_for_the_librarys_kernel_where_there_is_no_code_of_our_own(
    native: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAZX_NATIVE", native)
    layer = quantize_linear(torch.ones(64, 64), None, "nf4", torch.bfloat16, "cpu")
    fused = bitsandbytes.functional.has_avx512bf16() and not multiplies()
    assert isinstance(layer, TiledNf4Linear) == fused


def test_an_unknown_kind_names_the_two_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"unknown quantization 'int4'.*int8 or nf4"):
        load_model(checkpoint("llama", "full")[0], quantize="int4")
