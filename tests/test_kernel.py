"""The compiled kernel by itself, held to the formula in float64."""

from __future__ import annotations

import pytest
import torch
from checkpoints import GPT_NEOX, nazx
from models import INATTENTION, relative_error
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.kernels.lists import PositionLists
from nazx_cli.kernels.native import compiler, kernel
from nazx_cli.kernels.rotary import PhaseTables

pytestmark = pytest.mark.skipif(compiler.find_compiler() is None, reason="no compiler")

DTYPES = (torch.float32, torch.bfloat16)
# heads, rotary pairs, positions: one and two positions in the lanes, full and not; pairs in pieces
# of 8 and 16; fewer and more lists than a chunk.
SIZES = ((1, 1, 1), (3, 2, 7), (8, 8, 300), (8, 32, 900), (12, 8, 1500), (16, 20, 400), (5, 17, 90))


class Case:
    """Random lists, pairs, states and query, as the kernel takes them and as plain tensors."""

    def __init__(
        self, heads: int, half: int, count: int, dtype: torch.dtype, width: int = 64
    ) -> None:
        self.heads, self.half, self.dtype = heads, half, dtype
        self.dim = 2 * half + 4
        found = kernel.kernel_for(self._config(), torch.device("cpu"), dtype)
        assert found is not None
        self.kernel = found
        draw = torch.Generator().manual_seed(heads * 1000 + half * 10 + count)
        slots = (torch.rand(count, generator=draw) ** 3 * min(count, 200)).long()
        self.slots = torch.unique(slots, return_inverse=True)[1]
        self.lists = PositionLists()
        self.lists.build(self.slots, int(self.slots.max()) + 1)
        self.theta = 10.0 ** -torch.linspace(0, 4, half).double()
        rows = len(self.lists)
        self.pairs = torch.randn(rows, heads, 2 * half, generator=draw).to(dtype)
        self.states = torch.randn(rows, width, generator=draw).to(dtype)
        self.query = torch.randn(heads, self.dim, generator=draw)
        self.key = torch.randn(heads, width, generator=draw) * width**-0.5
        self.constants = torch.randn(heads, generator=draw)
        self.tables = PhaseTables(
            spared(self.table(torch.arange(0, 65_536, 1024)).float()),
            spared(self.table(torch.arange(1024)).float()),
        )

    def _config(self) -> ModelConfig:
        sizes = {
            "hidden_size": self.heads * self.dim,
            "num_attention_heads": self.heads,
            "rotary_pct": 2 * self.half / self.dim,
        }
        return ModelConfig.from_dict(nazx({**GPT_NEOX, **sizes}, INATTENTION))

    def table(self, positions: Tensor) -> Tensor:
        """(n, 2F) float64 phases."""
        angles = positions.double()[:, None] * self.theta
        return torch.cat((angles.cos(), angles.sin()), 1)

    @property
    def own(self) -> Tensor:
        """(2F,) phases of the query's position."""
        return self.table(torch.tensor([len(self.slots) - 1]))[0].float()

    @property
    def at(self) -> kernel.Lists:
        """Everything about the lists, laid out for the kernel."""
        rows = len(self.lists)
        flat = self.kernel.pair_rows(self.pairs.permute(1, 2, 0)).t().contiguous()
        longest = self.kernel.no_lengths()
        self.kernel.measure(flat, 0, rows, longest)
        return kernel.Lists(self.lists, self.tables, flat, longest)

    def weights(self, s: Tensor) -> Tensor:
        """(U, H) float64 by the formula, from s (U, H)."""
        q = self.query.double() * self.dim**-0.5
        a, b = q[:, : self.half], q[:, self.half : 2 * self.half]
        cos, sin = self.own.double().view(2, -1)
        ra, rb = a * cos - b * sin, b * cos + a * sin
        ka, kb = self.pairs.double().view(-1, self.heads, 2, self.half).unbind(2)
        phases = self.table(torch.arange(len(self.slots)))
        pc, ps = phases[:, None, : self.half], phases[:, None, self.half :]
        rka = ka[self.slots] * pc - kb[self.slots] * ps
        rkb = kb[self.slots] * pc + ka[self.slots] * ps
        scores = s.double()[self.slots] + (ra * rka + rb * rkb).sum(-1)
        out = torch.zeros(len(self.lists), self.heads, dtype=torch.float64)
        return out.index_add_(0, self.slots, scores.softmax(0))

    def plain_scores(self) -> Tensor:
        """(U, H) float64: s of ``attend``."""
        return self.states.double() @ self.key.double().t() + self.constants.double()


def spared(table: Tensor) -> Tensor:
    """The table with 16 numbers behind it."""
    room = torch.nn.functional.pad(table.flatten(), (0, 16), value=float("nan"))
    return room[: table.numel()].view(table.shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_weights_equal_the_formula(size: tuple[int, int, int], dtype: torch.dtype) -> None:
    case = Case(*size, dtype)
    s = torch.randn(len(case.lists), case.heads)
    got = case.kernel.weights(case.query, case.own, case.at, s).values
    assert relative_error(got, case.weights(s)) < (1e-5 if dtype is torch.float32 else 1e-4)
    assert torch.allclose(got.sum(0), torch.ones(case.heads), atol=1e-5)


@pytest.mark.parametrize("width", (32, 96, 1056, 2048))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_mixed_states_equal_the_formula(
    size: tuple[int, int, int], dtype: torch.dtype, width: int
) -> None:
    case = Case(*size, dtype, width)
    if not case.kernel.multiplies(width):
        pytest.skip("no matrix units")
    mixed, _ = case.kernel.attend(
        case.query, case.own, case.at, case.states, case.key, case.constants
    )
    want = case.weights(case.plain_scores()).t() @ case.states.double()
    assert mixed.shape == (case.heads, width)
    assert relative_error(mixed, want) < (1e-5 if dtype is torch.float32 else 0.01)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("far", (40.0, 2000.0))
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_bound_far_above_every_score_does_not_make_the_weights_vanish(
    size: tuple[int, int, int], far: float, dtype: torch.dtype
) -> None:
    """One pair is long, and the query's own is orthogonal to it wherever it stands: the bound
    rises by ``far`` and no score does."""
    case = Case(*size, dtype)
    case.theta[0] = 0.0
    for table, positions in (
        (case.tables.outer, torch.arange(0, 65_536, 1024)),
        (case.tables.inner, torch.arange(1024)),
    ):
        table.copy_(case.table(positions))
    case.query[:, 0], case.query[:, case.half] = case.dim**0.5, 0
    case.pairs[..., 0], case.pairs[..., case.half] = 0, far
    s = case.plain_scores()
    got = case.kernel.weights(case.query, case.own, case.at, s.float()).values
    want = case.weights(s)
    assert relative_error(got, want) < 1e-3
    if case.kernel.multiplies(64):
        mixed, _ = case.kernel.attend(
            case.query, case.own, case.at, case.states, case.key, case.constants
        )
        off = relative_error(mixed, want.t() @ case.states.double())
        assert off < (1e-4 if dtype is torch.float32 else 0.01)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_scores_are_exact_where_they_rise_from_list_to_list(dtype: torch.dtype) -> None:
    """Every list raises the maximum, by more than a float holds in all."""
    case = Case(12, 8, 1500, dtype)
    s = torch.linspace(-500, 500, len(case.lists))[:, None].repeat(1, 12)
    got = case.kernel.weights(case.query, case.own, case.at, s).values
    assert relative_error(got, case.weights(s)) < 1e-3
