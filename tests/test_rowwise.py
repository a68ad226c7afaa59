"""Products of one row per head: compiled and PyTorch's, held to float64."""

from __future__ import annotations

import pytest
import torch
from models import relative_error

from nazx_cli.kernels.native import compiler, rowwise
from nazx_cli.kernels.native.rowwise import from_left, from_right

SHAPES = ((1, 1, 1), (3, 5, 33), (12, 64, 768), (2, 7, 16), (4, 8, 15))


@pytest.mark.parametrize("native", ("0", "1"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_equal_those_in_float64(
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    native: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NAZX_NATIVE", native)
    heads, dim, width = shape
    draw = torch.Generator().manual_seed(dim)
    matrices = torch.randn(heads, dim, width, generator=draw).to(dtype)
    left = torch.randn(heads, dim, generator=draw).to(dtype)
    right = torch.randn(heads, width, generator=draw).to(dtype)
    rounds = dtype is torch.bfloat16 and rowwise._library_for(matrices) is None
    limit = 0.01 if rounds else 1e-6
    want = torch.einsum("hd,hdc->hc", left.double(), matrices.double())
    assert relative_error(from_left(left[:, None], matrices)[:, 0], want) < limit
    want = torch.einsum("hdc,hc->hd", matrices.double(), right.double())
    assert relative_error(from_right(right[:, None], matrices)[:, 0], want) < limit


@pytest.mark.skipif(compiler.find_compiler() is None, reason="no compiler")
def test_gradients_and_strided_matrices_go_through_pytorch() -> None:
    matrices = torch.randn(2, 3, 4).bfloat16()
    assert rowwise._library_for(matrices) is not None
    assert rowwise._library_for(matrices.float()) is None
    assert rowwise._library_for(matrices.transpose(1, 2)) is None
    assert rowwise._library_for(matrices.requires_grad_()) is None
    with torch.inference_mode():
        assert rowwise._library_for(matrices) is not None
