"""Posting lists, a query, and the weights that the Triton kernel must give for them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import torch
from torch import Tensor

from nazx_cli.kernels.lists import PositionLists
from nazx_cli.kernels.rotary import PhaseTables
from nazx_cli.kernels.triton.index import Segments

# Of every kind of segment one that is full, one that is not, and some that come after others.
LENGTHS = (1, 300, 2, 0, 3, 16, 17, 128, 5, 1, 1, 33, 131)


@dataclass(frozen=True)
class Problem:
    """One query and the posting lists it attends to, all on the CPU."""

    query: Tensor  # (H, D)
    s: Tensor  # (U, H)
    keys: Tensor  # (U, kv_heads, 2F), un-rotated
    lists: PositionLists
    appended: list[int]  # the list of each position that comes after those of ``lists``
    scaling: float = 1.2  # of cosines and sines, as YaRN has it

    @property
    def half(self) -> int:
        return self.keys.shape[2] // 2

    def phases(self, positions: Tensor) -> Tensor:
        """(T, 2F) float32: cosines, then sines, times ``scaling``."""
        exponents = torch.arange(self.half, dtype=torch.float64) / self.half
        angles = positions.double()[:, None] * 10000.0**-exponents
        return (torch.cat((angles.cos(), angles.sin()), 1) * self.scaling).float()

    def weights(self, device: torch.device) -> Tensor:
        """What the kernel gives."""
        weigh = importlib.import_module("nazx_cli.kernels.triton.weigh")
        held, total = Segments(device), self.lists.num_positions
        held.build(self.lists)
        for slot in self.appended:
            held.append(torch.tensor([slot], dtype=torch.int32))
        last = torch.tensor([total + len(self.appended) - 1])
        outer, inner = torch.arange(0, total + 1024, 1024), torch.arange(1024)
        found, _ = weigh.weights(
            self.query.to(device),
            self.phases(last)[0].to(device),
            self.s.to(device),
            self.keys.transpose(1, 2).flatten(1).to(device),
            held,
            PhaseTables(
                (self.phases(outer) / self.scaling).to(device), self.phases(inner).to(device)
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
