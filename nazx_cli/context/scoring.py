"""Scores from coefficients, and a softmax that needs to see each block only once.

With rope(q, i) = (ra, rb, rest) and an un-rotated key (a, b, rest') the score at position n is

    s + sum_f [ A_f cos(theta_f n) + B_f sin(theta_f n) ]
    s = rest . rest',   A_f = ra_f a_f + rb_f b_f,   B_f = rb_f a_f - ra_f b_f

Each of s, A_f, B_f is a dot product of the key with a *probe* made from the query, so all of
them come from one matrix product, with keys or, absorbed, with states.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nazx_cli.context.projections import Projections


def probes(projections: Projections, query: Tensor, phases: Tensor) -> Tensor:
    """(kv_heads, group * (1 + 2F), D) float32 probes of an un-rotated ``query`` (heads, D).

    ``phases`` (2F,) are those of the query's own position. The scale 1/sqrt(D) is folded in.
    Order within a head: s, A_0..A_F-1, B_0..B_F-1.
    """
    config, half = projections.config, projections.rotary.half
    heads, dim = query.shape
    q = query.float() * dim**-0.5
    cos, sin = phases[:half], phases[half:]
    a, b = q[:, :half], q[:, half : 2 * half]
    ra, rb = a * cos - b * sin, b * cos + a * sin  # (H, F)
    out = torch.zeros(heads, 1 + 2 * half, dim, device=q.device)
    out[:, 0, 2 * half :] = q[:, 2 * half :]
    f = torch.arange(half, device=q.device)
    out[:, 1 + f, f] = ra
    out[:, 1 + f, half + f] = rb
    out[:, 1 + half + f, f] = rb
    out[:, 1 + half + f, half + f] = -ra
    return out.view(config.num_kv_heads, -1, dim)


def plain_probes(projections: Projections, query: Tensor) -> Tensor:
    """(kv_heads, group, D) float32 probes of the dimensions that RoPE leaves alone, from an
    un-rotated ``query`` (heads, D); scale 1/sqrt(D) folded in."""
    q = query.float().mul(query.shape[1] ** -0.5)
    q[:, : 2 * projections.rotary.half] = 0
    return q.view(projections.config.num_kv_heads, -1, query.shape[1])


def rotary_basis(projections: Projections) -> Tensor:
    """(kv_heads, 2F, D) float32 probes that give a key's first 2F components."""
    config, turned = projections.config, 2 * projections.rotary.half
    basis = torch.eye(turned, config.head_dim, device=projections.device)
    return basis.repeat(config.num_kv_heads, 1, 1)


def absorbed(projections: Projections, layer: int, probe: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix (C, H * (1 + 2F)) in the model's type and constants (H * (1 + 2F),) float32 that
    turn states into coefficients; the H columns of s come first, then A and B by head."""
    vectors, constants = projections.absorb_keys(layer, probe)
    heads = projections.config.num_heads
    vectors = vectors.view(heads, -1, vectors.shape[-1])
    constants = constants.view(heads, -1)
    matrix = torch.cat((vectors[:, 0], vectors[:, 1:].flatten(0, 1)))
    biases = torch.cat((constants[:, 0], constants[:, 1:].flatten()))
    return matrix.to(projections.dtype).t(), biases


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of n keys: ``s`` (n, H) and ``ab`` (n, H, 2F), float32, any strides."""

    s: Tensor
    ab: Tensor

    def take(self, which: Tensor) -> Coefficients:
        """Those of the keys ``which`` (m,)."""
        return Coefficients(self.s.index_select(0, which), self.ab.index_select(0, which))

    def scores(self, phases: Tensor) -> Tensor:
        """(n, H, k) scores at k positions per key, from their phases (n, 2F, k)."""
        if not phases.shape[1]:
            return self.s.unsqueeze(-1).repeat(1, 1, phases.shape[2])
        return torch.bmm(self.ab, phases).add_(self.s.unsqueeze(-1))


def coefficients(states: Tensor, matrix: Tensor, biases: Tensor, heads: int) -> Coefficients:
    """Coefficients of ``states`` (n, C) by the matrix and constants of ``absorbed``."""
    both = (states @ matrix).float().add_(biases)
    return Coefficients(both[:, :heads], both[:, heads:].view(len(both), heads, -1))


class OnlineSoftmax:
    """Softmax-weighted sums over blocks of scores, kept relative to the largest score so far.

    ``total`` (X, H) is the weighted sum of rows, ``mass`` (H,) the sum of the weights.
    """

    def __init__(self, width: int, heads: int, device: torch.device) -> None:
        self._top = torch.full((heads,), -torch.inf, device=device)
        self.mass = torch.zeros(heads, device=device)
        self.total = torch.zeros(width, heads, device=device)

    def weigh(self, scores: Tensor) -> Tensor:
        """Unnormalised weights of ``scores`` (n, H, k), in their place; rescales what was
        gathered before."""
        top = torch.maximum(self._top, scores.amax((0, 2)))
        shrink = torch.exp(self._top - top)
        self.mass *= shrink
        self.total *= shrink
        self._top = top
        weights = scores.sub_(top[:, None]).exp_()
        self.mass += weights.sum((0, 2))
        return weights

    def result(self) -> Tensor:
        """(X, H): the weighted mean."""
        return self.total / self.mass
