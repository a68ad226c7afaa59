"""What is held, and how long it takes: each way of attending as one row beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nazx_cli.evaluation.approximations.base import Approximation, Sizes
from nazx_cli.evaluation.approximations.far import far_memory, far_sizes
from nazx_cli.evaluation.perplexity import Stretch
from nazx_cli.evaluation.probes import Outcome

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel

FAR = 1_000_000
"""Tokens for which bytes are told too, by formula."""


@dataclass(frozen=True)
class Cost:
    """Bytes of a context of ``length`` tokens and of ``FAR``; mean ``seconds`` of what was run, and
    the approximation's own figures."""

    model: str
    length: int
    held: int
    held_far: int
    seconds: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        label: str,
        lm: LanguageModel,
        approximation: Approximation | None,
        length: int,
        *,
        far: bool = False,
    ) -> Cost:
        """What a context of the model holds with an approximation, or without; with ``far`` what
        its far memory holds of so many tokens."""
        width = lm.decoder.dtype.itemsize
        sizes = far_sizes(far_memory(lm.decoder), width) if far else Sizes.of(lm.config, width)

        def held(count: int) -> int:
            return approximation.held(sizes, count) if approximation else sizes.position * count

        return cls(label, length, held(length), held(FAR))

    def measured(self, ran: Sequence[Stretch | Outcome]) -> Cost:
        """With means over those of its name."""
        mine = [each for each in ran if each.model == self.model]
        if not mine:
            return self
        told = [each.figures for each in mine if isinstance(each, Stretch)]
        names = dict.fromkeys(name for each in told for name in each)
        figures = {
            name: sum(values) / len(values)
            for name in names
            if (values := [each[name] for each in told if name in each])
        }
        seconds = sum(each.seconds for each in mine) / len(mine)
        return replace(self, seconds=seconds, figures=figures)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "bytes_a_position": self.held / self.length}
