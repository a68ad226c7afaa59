"""Logits made ahead: where an answer's latest tokens stood before, in the prompt or in the answer
itself, what followed there is likely to follow again, and is run together with the latest one.

Nothing is taken on trust. Whoever chooses tokens is given one row of logits after the other, the
same as without drafts; the rows after a draft count only once that very token was chosen. So drafts
change the time that an answer takes and nothing else, however its tokens are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from nazx_cli.context.context import Context

MOST_DRAFTS = 7
"""Tokens run ahead at most: with the latest one twice as many as share a reading of the weights."""
_ALIKE = 3  # latest tokens that have to have stood before

LogitsAhead = Callable[[Context, Sequence[int]], Tensor]
"""(context, drafts) -> (1 + n, V): see ``AttentionKind.logits_ahead``."""


class Lookup:
    """Follows one answer that grows at the end of ``context``, at most ``most`` drafts at a time.

    How many there are follows from how many were right: from one on, twice as many whenever all
    were. ``runs`` counts how often the model was run.
    """

    def __init__(self, logits_ahead: LogitsAhead, context: Context, most: int) -> None:
        self.runs = 0
        self._logits_ahead, self._context = logits_ahead, context
        self._most, self._next = most, min(1, most)
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # tokens in a row -> where they last ended
        self._rows: list[Tensor] = []  # made and not asked for yet
        self._drafts: list[int] = []  # those before each of these rows
        for token in context.live_ids if most else ():
            self._push(token)

    def logits(self) -> Tensor:
        """(V,) float32: those of the next token; ask once for each."""
        if not self._rows:
            self._run()
        return self._rows.pop(0)

    def push(self, token: int) -> None:
        """``token`` was chosen and is in the context now."""
        self._push(token)
        if not self._drafts:
            return
        if self._drafts.pop(0) != token:
            self._next = 1
            self._rows, self._drafts = [], []
        elif not self._drafts:
            self._next = min(2 * self._next, self._most)

    def _push(self, token: int) -> None:
        if len(self._ids) >= _ALIKE:
            self._after[tuple(self._ids[-_ALIKE:])] = len(self._ids)
        self._ids.append(token)

    def _run(self) -> None:
        at = self._after.get(tuple(self._ids[-_ALIKE:])) if self._next else None
        drafts = [] if at is None else self._ids[at : at + self._next]
        self._rows = list(self._logits_ahead(self._context, drafts))
        self._drafts = drafts[: len(self._rows) - 1]
        self.runs += 1
