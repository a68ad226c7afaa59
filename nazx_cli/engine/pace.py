"""How far a model is through its prompt, told to others while it runs: on a processor that is most
of the wait for an answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from nazx_cli.context.live_cache import LiveCache, same_beginning
from nazx_cli.model.attention.batch import alike

if TYPE_CHECKING:
    from nazx_cli.context.context import Context
    from nazx_cli.model.decoder import Decoder


class Pace:
    """Tells tokens run since it was made, and of how many, whenever it is called and from whatever
    thread.

    ``steps`` are the tokens of what is run one after another; of those that follow the first it
    is not known whether they will be: they count from when one begins.
    """

    def __init__(self, decoder: Decoder, steps: Sequence[int]) -> None:
        self._decoder, self._begin = decoder, decoder.rows_run
        self._totals = [*accumulate(steps)] or [0]

    @classmethod
    def of_prompts(
        cls, decoder: Decoder, prompts: Sequence[Sequence[int]], first: int | None = None
    ) -> Pace:
        """That of ``prompts`` that are put side by side, the ``first`` ones before the others."""
        steps = (prompts[:first], prompts[first:] if first is not None else ())
        return cls(decoder, [_shared(step) for step in steps if step])

    @classmethod
    def of_context(cls, decoder: Decoder, context: Context) -> Pace:
        """That of the tokens of ``context`` that have still to run before its next one."""
        memory, live = context.memory, context.tokens.live()
        if not isinstance(memory, LiveCache) or not len(live):
            return cls(decoder, ())
        return cls(decoder, [len(live) - min(same_beginning(memory.ids, live), len(live) - 1)])

    def __call__(self) -> tuple[int, int]:
        """Tokens done, and in all."""
        done = (self._decoder.rows_run - self._begin) // self._decoder.config.num_layers
        total = next((each for each in self._totals if done <= each), self._totals[-1])
        return min(done, total), total


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that run for ``prompts``: what they begin with runs once."""
    begun = alike(prompts)
    return begun + sum(len(ids) - begun for ids in prompts)
