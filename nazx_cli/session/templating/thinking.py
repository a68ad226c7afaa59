"""The marks between which a model thinks before it answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from nazx_cli.session.templating.form import form_of
from nazx_cli.tokenizer.sources import ANALYSIS, ANSWER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nazx_cli.engine.generator import Step
    from nazx_cli.tokenizer import Tokenizer

_PAIRS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
)
_TAIL = 16  # tokens of a prompt that hold an opening and what may follow it


def marks_of(tokenizer: Tokenizer) -> Marks | None:
    """The marks that a model's template names, or that are tokens of their own; None where it does
    not think."""
    if tokenizer.chat_template is None:
        return None
    if tokenizer.takes_sources:
        return Marks(tokenizer, ANALYSIS, ANSWER)
    for opening, closing in _PAIRS:
        is_named = form_of(tokenizer).mentions(closing)
        if is_named or all(len(tokenizer.encode_markup(m)) == 1 for m in (opening, closing)):
            return Marks(tokenizer, opening, closing)
    return None


@dataclass(frozen=True)
class Marks:
    """What a model writes, or its template, before and after what it thinks."""

    tokenizer: Tokenizer
    opening: str
    closing: str

    def is_open(self, prompt: Sequence[int]) -> bool:
        """Whether the prompt's end has the model think already."""
        tail = self.tokenizer.decode(list(prompt[-_TAIL:]), skip_special=False)
        return tail.rstrip().endswith(self.opening)

    def text_of(self, step: Step) -> str:
        """What the step says, marks included where they are special tokens, which have no text."""
        return step.delta + self._special.get(step.token, "")

    def close(self) -> list[int]:
        """Tokens that end the thinking for the model."""
        return self.tokenizer.encode_markup(f"\n{self.closing}\n\n")

    @cached_property
    def _special(self) -> dict[int, str]:
        special = self.tokenizer.special_ids
        return {special[mark]: mark for mark in (self.opening, self.closing) if mark in special}
