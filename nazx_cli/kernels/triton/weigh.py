"""The kernel: maxima and sums of exponentials of every segment, for one query (design section 2).

For list u with un-rotated key components (a, b) of rotary pair f, and (ra, rb) of the query turned
to its own position, per head:

    A = ra a + rb b        B = rb a - ra b
    score(n) = s_u + sum_f [ A_f cos(theta_f n) + B_f sin(theta_f n) ]

Every segment is summed relative to its own largest score, and the sums meet afterwards, so that
no bound of the scores is asked for and no weight vanishes that a softmax would keep. Arithmetic
is float32 whatever the type of the pairs.

The only file that imports Triton, which reads the annotations of a kernel itself.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nazx_cli.kernels import SEGMENT_ROWS as ROWS
from nazx_cli.kernels.base import Attended
from nazx_cli.kernels.rotary import PhaseTables
from nazx_cli.kernels.triton.index import Segments

_HEADS = 16  # heads of one program; more are taken in blocks
_WARPS = 4


def weights(
    query: Tensor, own: Tensor, s: Tensor, pairs: Tensor, segments: Segments, phases: PhaseTables
) -> Attended:
    """(U, H) float32 softmax weights of each list; columns add up to 1.

    query (H, D) un-rotated; own (2F,) phases of its position, float32; s (U, H) float32 scores of
    the dimensions that are not rotated, scale 1/sqrt(D) included; pairs (>= U, 2F * kv_heads)
    the key components that are, head by head within a component. All on one device.
    """
    heads, dim = query.shape
    half, count = len(own) // 2, segments.count
    block = min(_HEADS, 1 << (heads - 1).bit_length())
    found = torch.empty(2, count, heads, device=s.device)
    with torch.cuda.device_of(s):
        weigh_segments[segments.programs(), -(-heads // block)](
            query.contiguous(),
            own.contiguous(),
            s.contiguous(),
            pairs.contiguous(),
            segments.table,
            segments.positions,
            phases.outer,
            phases.inner,
            found,
            dim**-0.5,
            segments.table.shape[1],
            *segments.ends,
            count,
            heads=heads,
            group=heads * 2 * half // pairs.shape[1],
            half=half,
            dim=dim,
            block=block,
            rows=ROWS,
            num_warps=_WARPS,
            enable_fp_fusion=True,
        )
    top, mass = found
    most = top.amax(0)
    mass *= torch.exp(top - most)
    total = torch.zeros_like(s).index_add_(0, segments.table[0, :count], mass)
    every = mass.sum(0)
    return Attended(total.div_(every), most + every.log())


@triton.jit(do_not_specialize=("capacity", "wide", "middle", "count"))
def weigh_segments(
    query,  # (H, D)
    own,  # (2F,)
    s,  # (U, H)
    pairs,  # (U, 2F, H / group)
    table,  # (3, capacity)
    positions,
    outer,  # phases of multiples of 1024, (B, 2F)
    inner,  # and of 0..1023
    found,  # (2, count, H): maxima, then sums
    scale,
    capacity,
    wide,
    middle,
    count,  # with the two before it: where the segments of each width end
    heads: tl.constexpr,
    group: tl.constexpr,  # query heads of a key head
    half: tl.constexpr,
    dim: tl.constexpr,
    block: tl.constexpr,
    rows: tl.constexpr,
):
    """Program (i, j): ``rows`` positions, of one segment or several, for the j-th block of heads.

    The segments of each kind hold ``rows``, ``rows`` / 8 and ``rows`` / 64 positions, so that 1, 8
    and 64 of them make a program.
    """
    at = tl.program_id(0)
    h = tl.program_id(1) * block + tl.arange(0, block)
    first = 0
    for kind in tl.static_range(3):
        if kind == 0:
            last = wide
        elif kind == 1:
            last = middle
        else:
            last = count
        programs = tl.cdiv(last - first, 1 << (3 * kind))
        if (at >= 0) & (at < programs):
            g = first + at * (1 << (3 * kind)) + tl.arange(0, 1 << (3 * kind))
            is_cell = (g < last)[:, None] & (h < heads)[None, :]
            u = tl.load(table + g, mask=g < last, other=0).to(tl.int64)
            start = tl.load(table + capacity + g, mask=g < last, other=0)
            held = tl.load(table + 2 * capacity + g, mask=g < last, other=0)
            j = tl.arange(0, rows >> (3 * kind))
            is_held = j[None, :] < held[:, None]
            n = tl.load(positions + start[:, None] + j[None, :], mask=is_held, other=0)
            s_of = tl.load(s + u[:, None] * heads + h[None, :], mask=is_cell, other=0.0)
            row = pairs + u[:, None] * (2 * half * (heads // group)) + (h // group)[None, :]
            score = s_of[:, None, :] + _rotated(
                query, own, row, outer, inner, scale, n, h, is_cell, heads, group, half, dim
            )
            score = tl.where(is_held[:, :, None], score, float("-inf"))
            top = tl.where(is_cell, tl.max(score, 1), 0.0)
            mass = tl.sum(tl.exp(score - top[:, None, :]), 1)
            place = found + g.to(tl.int64)[:, None] * heads + h[None, :]
            tl.store(place, top, mask=is_cell)
            tl.store(place + count.to(tl.int64) * heads, mass, mask=is_cell)
        at -= programs
        first = last


@triton.jit
def _rotated(
    query,
    own,
    row,  # (segments, heads): where the pairs of each begin
    outer,
    inner,
    scale,
    n,  # (segments, width): positions
    h,
    is_cell,
    heads: tl.constexpr,
    group: tl.constexpr,
    half: tl.constexpr,
    dim: tl.constexpr,
):
    """(segments, width, heads): what the dimensions that RoPE turns add to the scores."""
    far = outer + (n >> 10) * (2 * half)
    near = inner + (n & 1023) * (2 * half)
    keys: tl.constexpr = heads // group
    score = tl.zeros((n.shape[0], n.shape[1], h.shape[0]), tl.float32)
    for f in range(half):
        qa = tl.load(query + h * dim + f, mask=h < heads, other=0.0).to(tl.float32)
        qb = tl.load(query + h * dim + half + f, mask=h < heads, other=0.0).to(tl.float32)
        cos = tl.load(own + f) * scale
        sin = tl.load(own + half + f) * scale
        ra = (qa * cos - qb * sin)[None, :]
        rb = (qb * cos + qa * sin)[None, :]
        a = tl.load(row + f * keys, mask=is_cell, other=0.0).to(tl.float32)
        b = tl.load(row + (half + f) * keys, mask=is_cell, other=0.0).to(tl.float32)
        # cos and sin of theta_f n by angle addition, n = 1024 o + r.
        co, so = tl.load(far + f), tl.load(far + half + f)
        ci, si = tl.load(near + f), tl.load(near + half + f)
        score += (co * ci - so * si)[:, :, None] * (ra * a + rb * b)[:, None, :]
        score += (so * ci + co * si)[:, :, None] * (rb * a - ra * b)[:, None, :]
    return score
