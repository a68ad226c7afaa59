"""What the layouts on a kernel share: posting lists that follow edits, and states by slot."""

from __future__ import annotations

from torch import Tensor

from nazx_cli.context.growing import GrowingRows
from nazx_cli.context.layout import Layout
from nazx_cli.context.native.index import ListIndex
from nazx_cli.context.projections import Projections
from nazx_cli.context.tokens import TokenSequence


class ListedStates(Layout):
    """States (U, C) in the model's type, on the model's device, beside the posting lists."""

    def __init__(self, projections: Projections) -> None:
        super().__init__(projections)
        p = projections
        self._index = ListIndex(p)
        self._states = GrowingRows((p.config.hidden_size,), p.dtype, p.device)

    def edited(self, tokens: TokenSequence, at: int, removed: int, added: int) -> None:
        self._index.edited(at, removed, added)

    def forget(self, at: int) -> None:
        self._index.edited(at, max(0, self.length - at), 0)

    def sync(self, tokens: TokenSequence) -> None:
        fresh = self._index.sync(tokens)
        if len(fresh):
            self._states.extend(len(fresh)).copy_(self.projections.states(fresh))
        if self._index.wasteful():
            self._keep(self._index.compact())
        self.length = len(tokens)

    def _keep(self, which: Tensor) -> None:
        """Keep the rows of slots ``which`` (n,), in that order; lists have new numbers now."""
        self._states.keep(which)

    @property
    def nbytes(self) -> int:
        return self._index.nbytes + self._states.nbytes
