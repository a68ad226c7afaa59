"""Layout ``ids``: nothing kept but the token ids; everything recomputed block by block."""

from __future__ import annotations

import torch
from torch import Tensor

from nazx_cli.context.layout import Layout
from nazx_cli.context.scoring import OnlineSoftmax, absorbed, coefficients, probes
from nazx_cli.context.tokens import TokenSequence

_BLOCK = 16_384  # positions at a time: the transient coefficients stay near 16 MB


class IdsLayout(Layout):
    """Each block's distinct tokens are looked up, scored and mixed anew in every layer."""

    name = "ids"

    def forget(self, at: int) -> None:
        """Nothing is kept."""

    def sync(self, tokens: TokenSequence) -> None:
        self.tokens = tokens
        self.length = len(tokens)

    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Tensor:
        p, n = self.projections, self.length
        heads = p.config.num_heads
        matrix, biases = absorbed(p, layer, probes(p, query, phases))
        softmax = OnlineSoftmax(p.config.hidden_size, heads, p.device)
        for start in range(0, n, _BLOCK):
            stop = min(start + _BLOCK, n)
            block = self.tokens.slice(start, stop).to(p.device)
            distinct, which = torch.unique(block, return_inverse=True)
            states = p.states(distinct)
            coefs = coefficients(states, matrix, biases, heads)
            turned = p.rotary.phases(start, stop, n, p.device)
            weights = softmax.weigh(coefs.take(which).scores(turned.unsqueeze(-1)))
            by_token = torch.zeros(len(distinct), heads, device=p.device)
            by_token.index_add_(0, which, weights.squeeze(-1))
            softmax.total += states.float().t() @ by_token
        return p.project_values(layer, softmax.result().t())

    @property
    def nbytes(self) -> int:
        return 0
