"""The compiled loop over cells of several tokens by itself, held to the formula in float64."""

from __future__ import annotations

import pytest
import torch
from checkpoints import GPT_NEOX, nazx
from models import relative_error
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.kernels.native import compiler
from nazx_cli.kernels.native.grams import Positions, gram_kernel_for
from nazx_cli.kernels.rotary import PhaseTables

pytestmark = pytest.mark.skipif(compiler.find_compiler() is None, reason="no compiler")

# heads, rotary pairs, tokens that a state sees, positions: vectors of 4, 8 and 16 lanes, full
# and not; the first positions, which see fewer tokens, alone and before others.
SIZES = (
    *((1, 1, 2, 1), (2, 3, 4, 2), (3, 2, 2, 90), (4, 8, 3, 1500)),
    *((5, 4, 2, 90), (8, 8, 3, 300), (9, 2, 3, 90), (12, 8, 3, 300), (16, 5, 4, 300)),
)


def table(positions: Tensor, theta: Tensor) -> Tensor:
    """(n, 2F) float64 phases."""
    angles = positions.double()[:, None] * theta
    return torch.cat((angles.cos(), angles.sin()), 1)


@pytest.mark.parametrize("lead", (0, 1))  # tokens that stand before the first position
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_weights_of_cells_equal_the_formula(
    size: tuple[int, int, int, int], dtype: torch.dtype, lead: int
) -> None:
    heads, half, window, count = size
    dim, rows = 2 * half + 4, 50
    config = {"hidden_size": heads * dim, "num_attention_heads": heads}
    config["rotary_pct"] = 2 * half / dim  # type: ignore[assignment]
    attention = {"kind": "inattention", "initial_window": window}
    kernel = gram_kernel_for(ModelConfig.from_dict(nazx({**GPT_NEOX, **config}, attention)), dtype)
    assert kernel is not None and kernel.heads == heads
    draw = torch.Generator().manual_seed(sum(size))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    slots = torch.randint(rows, (window - 1 + count,), generator=draw, dtype=torch.int32)
    slots[: window - 1 - lead] = -1
    scales = torch.rand(count, generator=draw) + 0.5
    theta = 10.0 ** -torch.linspace(0, 4, half).double()
    steps = (torch.arange(0, 65_536, 1024), torch.arange(1024))
    phases = PhaseTables(*(table(each, theta).float() for each in steps))
    pairs = normal(heads, 2 * half, rows * window).to(dtype)
    query, s = normal(heads, dim), normal(rows * window, heads)
    constants, fixed = normal(heads), normal(heads, 2 * half)
    own = table(torch.tensor([count - 1]), theta)[0]

    got = kernel.attend(
        query,
        own.float(),
        Positions(slots, scales, phases),
        kernel.pair_rows(pairs).t().contiguous(),
        s,
        constants,
        fixed,
    )

    a, b = (query.double() * dim**-0.5)[:, : 2 * half].split(half, 1)
    cos, sin = own.split(half)
    ra, rb = a * cos - b * sin, b * cos + a * sin
    turns = table(torch.arange(count), theta)
    pc, ps = turns[:, None, :half], turns[:, None, half:]
    turned = torch.cat((ra * pc + rb * ps, rb * pc - ra * ps), 2)  # (N, H, 2F)
    plain = pairs.double().permute(2, 0, 1)  # (U * w, H, 2F)
    scores = torch.zeros(count, heads, dtype=torch.float64)
    seen = [
        [(n, int(slots[n + window - 1 - d]) * window + d) for n in range(count)]
        for d in range(window)
    ]
    cells = [(n, row) for each in seen for n, row in each if row >= 0]
    for n, row in cells:
        scores[n] += s[row].double() + (plain[row] * turned[n]).sum(-1)
    scores = scores * scales[:, None] + constants + (fixed.double() * turned).sum(-1)
    weights = scores.softmax(0) * scales[:, None]
    want = torch.zeros(rows * window, heads, dtype=torch.float64)
    for n, row in cells:
        want[row] += weights[n]
    assert relative_error(got.values, want) < 1e-4
    assert torch.allclose(got.lse.double(), scores.logsumexp(0), atol=1e-4)
