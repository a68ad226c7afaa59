"""Whether the Triton kernel can be used: only where it is asked for and a trial of it is right."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.kernels import PHASE_BLOCK
from nazx_cli.kernels import SEGMENT_ROWS as ROWS
from nazx_cli.kernels.lists import PositionLists
from nazx_cli.kernels.rotary import PhaseTables
from nazx_cli.kernels.triton.index import Segments

_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_YES = ("1", "true", "on", "yes", "y")  # as Triton reads its variables
_BLOCKS = 2  # the trial's positions reach into the second of them
_OFF = 1e-4  # the most that a weight of the trial may differ


def usable(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the posting lists of a model can use the kernel.

    It wants InAttention, a CUDA device, rotary dimensions, and a trial at the model's shapes that
    gives the right weights; what Triton then compiles is kept in its own cache. ``NAZX_NATIVE=0``
    turns it off. In Triton's interpreter, which is far slower than PyTorch, it is
    used on any device, with ``NAZX_NATIVE=triton`` only.
    """
    asked = os.environ.get("NAZX_NATIVE")
    if os.environ.get("TRITON_INTERPRET", "").lower() in _YES:
        wanted = asked == "triton"
    else:
        wanted = device.type == "cuda" and asked != "0"
    half = config.rope.dim // 2
    if not wanted or config.attention.kind != "inattention" or not half or dtype not in _TYPES:
        return False
    return _works(
        _Shape(config.num_heads, config.num_kv_heads, half, config.head_dim, dtype), device
    )


@dataclass(frozen=True)
class _Shape:
    heads: int
    kv_heads: int
    half: int
    dim: int
    dtype: torch.dtype


@lru_cache(maxsize=8)
def _works(shape: _Shape, device: torch.device) -> bool:
    """Whether the kernel gives the right weights for random lists of every kind of segment.

    Whatever is wrong with Triton, its compiler or the device, there is another way to do the same.
    """
    try:
        return _trial(shape, device) < _OFF
    except Exception:
        return False


def _trial(shape: _Shape, device: torch.device) -> float:
    """The largest difference between a weight of the kernel and the same in float64."""
    from nazx_cli.kernels.triton.weigh import weights

    counts = torch.tensor((1, 2, ROWS // 8 + 1, 2 * ROWS + 5))
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    turned = 2 * shape.half
    query = random(shape.heads, shape.dim).to(shape.dtype)
    pairs = random(len(counts), turned * shape.kv_heads).to(shape.dtype)
    s, own = random(len(counts), shape.heads), random(turned)
    tables = PhaseTables(random(_BLOCKS, turned), random(PHASE_BLOCK, turned))
    lists, slots = PositionLists(), torch.arange(len(counts)).repeat_interleave(counts)
    order = torch.randperm(len(slots), generator=generator)
    lists.build(slots[order].to(torch.int32), len(counts))
    lists.positions += PHASE_BLOCK - len(slots) // 2
    segments = Segments(device)
    segments.build(lists)
    there = PhaseTables(tables.outer.to(device), tables.inner.to(device))
    q, o, own_s, keys = (x.to(device) for x in (query, own, s, pairs))
    got = weights(q, o, own_s, keys, segments, there).values
    want = _expected(query, own, s, pairs, lists, tables)
    return float((got.cpu() - want).abs().max().nan_to_num(1.0))


def _expected(
    query: Tensor, own: Tensor, s: Tensor, pairs: Tensor, lists: PositionLists, tables: PhaseTables
) -> Tensor:
    """(U, H) float64: what ``weigh.weights`` must give. With pairs as complex numbers r, k and
    phases z, a score is s + Re(r conj(k) conj(z))."""
    heads, dim = query.shape
    half = len(own) // 2
    r = _complex(query[:, : 2 * half]) * _complex(own) * dim**-0.5  # (H, F)
    k = _complex(pairs.view(len(pairs), 2 * half, -1).transpose(1, 2))  # (U, kv_heads, F)
    k = k.repeat_interleave(heads // k.shape[1], 1)  # (U, H, F)
    where = lists.positions.long()
    z = _complex(tables.outer)[where // PHASE_BLOCK] * _complex(tables.inner)[where % PHASE_BLOCK]
    of = torch.arange(len(lists)).repeat_interleave(lists.counts)
    scores = s.double()[of] + ((r * k.conj())[of] * z.conj()[:, None]).sum(-1).real  # (N, H)
    return torch.zeros(s.shape, dtype=torch.float64).index_add_(0, of, scores.softmax(0))


def _complex(parts: Tensor) -> Tensor:
    """(..., F) complex from (..., 2F): real parts, then imaginary ones."""
    a, b = parts.double().chunk(2, -1)
    return torch.complex(a, b)
