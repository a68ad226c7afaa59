"""What a model says to a prompt, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from nazx_cli.engine.generator import Step
from nazx_cli.session.templating.templates import StopFilter, stop_ids, stop_strings

if TYPE_CHECKING:
    from nazx_cli.context.context import Context
    from nazx_cli.engine.grounding import Grounding
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.engine.sampling import Sampling


@dataclass(frozen=True)
class Speaker:
    """A model, with what ends its answers."""

    lm: LanguageModel

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return stop_ids(self.lm.tokenizer)

    def say(
        self, context: Context, max_tokens: int, sampling: Sampling, grounding: Grounding | None
    ) -> Iterator[Step]:
        """Steps of an answer, which a stop string ends as a stop token does."""
        stops = StopFilter(stop_strings(self.lm.tokenizer))
        for step in self.lm.generate(
            context,
            max_tokens=max_tokens,
            sampling=sampling,
            stop_ids=self.stop_ids,
            grounding=grounding,
        ):
            piece = stops.push(step.delta)
            if stops.stopped:
                yield replace(step, delta=piece, finish="stop")
                return
            if step.finish is not None:
                piece += stops.flush()
            yield replace(step, delta=piece)
