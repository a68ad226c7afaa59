"""Layout ``states``: the paper's; one standardized state per position, shared by all layers."""

from __future__ import annotations

import torch
from torch import Tensor

from nazx_cli.context.growing import GrowingRows
from nazx_cli.context.layout import Layout
from nazx_cli.context.projections import Projections
from nazx_cli.context.scoring import OnlineSoftmax, absorbed, coefficients, probes
from nazx_cli.context.tokens import TokenSequence

_BLOCK = 8_192  # positions scored at a time


class StatesLayout(Layout):
    """States (N, C) in the model's type and phases (N, 2F) float32."""

    name = "states"

    def __init__(self, projections: Projections) -> None:
        super().__init__(projections)
        p = projections
        self._states = GrowingRows((p.config.hidden_size,), p.dtype, p.device)
        self._phases = GrowingRows((2 * p.rotary.half,), torch.float32, p.device)
        self._phase_length = 0  # sequence length that the phases were made for

    def forget(self, at: int) -> None:
        self._states.truncate(at)

    def sync(self, tokens: TokenSequence) -> None:
        p, n = self.projections, len(tokens)
        if not p.rotary.same_frequencies(self._phase_length, n):
            self._phases.truncate(0)
        self._phase_length = n
        if self._phases.count > n:
            self._phases.truncate(n)
        start = self._states.count
        new = self._states.extend(n - start)
        for at in range(0, len(new), _BLOCK):
            part = new[at : at + _BLOCK]
            part.copy_(p.states(tokens.slice(start + at, start + at + len(part))))
        known = self._phases.count
        if known < n:
            self._phases.extend(n - known).copy_(p.rotary.phases(known, n, n, p.device))
        self.length = n

    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Tensor:
        p, states, every = self.projections, self._states.rows, self._phases.rows
        heads = p.config.num_heads
        matrix, biases = absorbed(p, layer, probes(p, query, phases))
        softmax = OnlineSoftmax(p.config.hidden_size, heads, p.device)
        for start in range(0, self.length, _BLOCK):
            block = states[start : start + _BLOCK]
            coefs = coefficients(block, matrix, biases, heads)
            weights = softmax.weigh(coefs.scores(every[start : start + _BLOCK, :, None]))
            softmax.total += block.float().t() @ weights.squeeze(-1)
        return p.project_values(layer, softmax.result().t())

    @property
    def nbytes(self) -> int:
        return self._states.nbytes + self._phases.nbytes
