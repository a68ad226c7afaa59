"""Layout ``postings``: posting lists and one standardized state per distinct token.

Projections are absorbed, so that memory hardly grows with the number of layers.
"""

from __future__ import annotations

from torch import Tensor

from nazx_cli.context.growing import GrowingRows
from nazx_cli.context.inverted_index import InvertedIndex
from nazx_cli.context.layout import Layout
from nazx_cli.context.projections import Projections
from nazx_cli.context.scoring import absorbed, coefficients, probes
from nazx_cli.context.tokens import TokenSequence


class PostingsLayout(Layout):
    """States (U, C) in the model's type beside the inverted index."""

    name = "postings"

    def __init__(self, projections: Projections) -> None:
        super().__init__(projections)
        p = projections
        self._index = InvertedIndex(p)
        self._states = GrowingRows((p.config.hidden_size,), p.dtype, p.device)

    def forget(self, at: int) -> None:
        self._index.forget(at)

    def sync(self, tokens: TokenSequence) -> None:
        if self._index.wasteful(tokens):
            self._keep(self._index.compact(tokens))
        fresh = self._index.sync(tokens)
        if len(fresh):
            self._states.extend(len(fresh)).copy_(self.projections.states(fresh))
        self.length = len(tokens)

    def _keep(self, slots: Tensor) -> None:
        """Keep the rows of ``slots`` (n,), in that order."""
        self._states.keep(slots)

    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Tensor:
        p, states = self.projections, self._states.rows
        matrix, biases = absorbed(p, layer, probes(p, query, phases))
        weights = self._index.weights(coefficients(states, matrix, biases, p.config.num_heads))
        mixed = weights.t().to(states.dtype) @ states
        return p.project_values(layer, mixed)

    @property
    def nbytes(self) -> int:
        return self._index.nbytes + self._states.nbytes
