"""Layouts that go through every position for every token, block by block, projections absorbed.

``ids`` keeps nothing but the token ids, ``states`` what the paper does: one standardized state per
position, shared by all layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nazx_cli.context.layout import Layout, Projections
from nazx_cli.kernels import KernelName
from nazx_cli.kernels.base import Attended, Tokens
from nazx_cli.kernels.pytorch import Coefficients, OnlineSoftmax, probes
from nazx_cli.kernels.rows import GrowingRows

_BLOCK_OF_IDS = 16_384  # positions at a time: the transient coefficients stay near 16 MB
_BLOCK_OF_STATES = 8_192


class IdsLayout(Layout):
    """Each block's distinct tokens are looked up, scored and mixed anew in every layer."""

    name = "ids"

    def edited(self, at: int, removed: int, added: int) -> None:
        """Nothing is kept."""

    def sync(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.length, self.total = len(tokens), tokens.total

    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Attended:
        p, n = self.projections, self.length
        heads = p.config.num_heads
        absorbed = AbsorbedQuery.of(p, layer, query, phases)
        softmax = OnlineSoftmax(p.config.hidden_size, heads, p.device)
        for start in range(0, n, _BLOCK_OF_IDS):
            stop = min(start + _BLOCK_OF_IDS, n)
            block = self.tokens.slice(start, stop).to(p.device)
            distinct, which = torch.unique(block, return_inverse=True)
            states = p.states(distinct)
            coefs = absorbed.coefficients(states)
            turned = p.rotary.phases(start, stop, self.total, p.device)
            weights = softmax.weigh(coefs.take(which).scores(turned.unsqueeze(-1)))
            by_token = torch.zeros(len(distinct), heads, device=p.device)
            by_token.index_add_(0, which, weights.squeeze(-1))
            softmax.total += states.float().t() @ by_token
        return _projected(p, layer, softmax)

    @property
    def nbytes(self) -> int:
        return 0


class StatesLayout(Layout):
    """States (N, C) in the model's type and phases (N, 2F) float32."""

    name = "states"

    def __init__(self, projections: Projections, kernel: KernelName = "torch") -> None:
        super().__init__(projections, kernel)
        p = projections
        self._states = GrowingRows((p.config.hidden_size,), p.dtype, p.device)
        self._phases = GrowingRows((2 * p.rotary.half,), torch.float32, p.device)

    def edited(self, at: int, removed: int, added: int) -> None:
        self._states.truncate(at)

    def sync(self, tokens: Tokens) -> None:
        p, n = self.projections, len(tokens)
        if not p.rotary.same_frequencies(self.total, tokens.total):
            self._phases.truncate(0)
        if self._phases.count > n:
            self._phases.truncate(n)
        start = self._states.count
        new = self._states.extend(n - start)
        for at in range(0, len(new), _BLOCK_OF_STATES):
            part = new[at : at + _BLOCK_OF_STATES]
            part.copy_(p.states(tokens.slice(start + at, start + at + len(part))))
        known = self._phases.count
        if known < n:
            self._phases.extend(n - known).copy_(p.rotary.phases(known, n, tokens.total, p.device))
        self.length, self.total = n, tokens.total

    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Attended:
        p, states, every = self.projections, self._states.rows, self._phases.rows
        heads = p.config.num_heads
        absorbed = AbsorbedQuery.of(p, layer, query, phases)
        softmax = OnlineSoftmax(p.config.hidden_size, heads, p.device)
        for start in range(0, self.length, _BLOCK_OF_STATES):
            block = states[start : start + _BLOCK_OF_STATES]
            coefs = absorbed.coefficients(block)
            weights = softmax.weigh(coefs.scores(every[start : start + _BLOCK_OF_STATES, :, None]))
            softmax.total += block.float().t() @ weights.squeeze(-1)
        return _projected(p, layer, softmax)

    @property
    def nbytes(self) -> int:
        return self._states.nbytes + self._phases.nbytes


def _projected(p: Projections, layer: int, softmax: OnlineSoftmax) -> Attended:
    """Of weighted states (C, heads) their values."""
    mixed, lse = softmax.result()
    return Attended(p.project_values(layer, mixed.t()), lse)


@dataclass(frozen=True)
class AbsorbedQuery:
    """One query in one layer, ready for states instead of keys: ``matrix`` (C, H * (1 + 2F)) in
    the model's type and ``biases`` (H * (1 + 2F),) float32; the H columns of s come first, then A
    and B by head."""

    matrix: Tensor
    biases: Tensor
    heads: int

    @classmethod
    def of(cls, p: Projections, layer: int, query: Tensor, phases: Tensor) -> AbsorbedQuery:
        """From an un-rotated query (H, D) and the phases (2F,) of its position."""
        heads = p.config.num_heads
        vectors, constants = p.absorb_keys(layer, probes(query, phases, p.config.num_kv_heads))
        vectors = vectors.view(heads, -1, vectors.shape[-1])
        constants = constants.view(heads, -1)
        matrix = torch.cat((vectors[:, 0], vectors[:, 1:].flatten(0, 1)))
        biases = torch.cat((constants[:, 0], constants[:, 1:].flatten()))
        return cls(matrix.to(p.dtype).t(), biases, heads)

    def coefficients(self, states: Tensor) -> Coefficients:
        """Those of keys of ``states`` (n, C)."""
        return self.split((states @ self.matrix).float().add_(self.biases))

    def split(self, both: Tensor) -> Coefficients:
        """Products (n, H * (1 + 2F)), biases included, as coefficients."""
        rotated = both[:, self.heads :].view(len(both), self.heads, -1)
        return Coefficients(both[:, : self.heads], rotated)
