"""What an answer is held to while it is generated: the contract. ``reading.grounding`` holds names
and numbers to the documents."""

from __future__ import annotations

from typing import Protocol

PENALTY = 4.0
"""Natural logarithm by which the odds of a token that does not fit are lowered: one that fits
stands in its place unless the model finds it so much less likely: what a model is sure of stays."""


class Grounding(Protocol):
    """Made for a question; serves any number of answers to it."""

    def begin(self) -> Grounded:
        """For one answer, from its first token on."""


class Grounded(Protocol):
    """One answer so far."""

    def fits(self, token: int) -> bool:
        """Whether ``token`` may come next; cheap, since likely tokens are asked for one by one."""

    def take(self, token: int) -> None:
        """``token`` comes next, whether it fits or not."""
