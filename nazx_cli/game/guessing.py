"""A model's guess at the next word, from the last so many tokens of a text.

A word is more than a token. Its probability is the product over the tokens that write it after a
space, times that of its end: of all tokens that do not go on with letters. The first factor is
among the tokens that begin a word, since whoever guesses knows that one comes. Other ways to cut
the same word into tokens are not added up, so what is given is a little too small. The guess is
the likeliest token each time, until one ends the word.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nazx_cli.game.words import Question

if TYPE_CHECKING:
    from torch import Tensor

    from nazx_cli.context.context import Context
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.tokenizer import Tokenizer

_LONGEST = 16  # tokens of a guess
_NEVER = -math.inf


@dataclass(frozen=True)
class Guess:
    """The word that a model says, and the probability that it gives to the true one."""

    word: str
    chance: float


class Guesser:
    """A model that sees the last ``sees`` tokens of the text (None: all of them)."""

    def __init__(self, lm: LanguageModel, sees: int | None) -> None:
        self.lm, self.sees = lm, sees
        self._begins, self._goes_on = letters(lm.tokenizer, lm.config.vocab_size)
        self._context = lm.new_context()
        self._held: list[int] = []

    def guess(self, question: Question) -> Guess:
        """Its guess at the word of ``question``."""
        before, word = self._ids(question)
        context = self._holding(before)
        first = self._first(self.lm.next_logits(context))
        at = len(context)
        try:
            chance = math.exp(self._chance(context, first, word))
            context.delete(at, len(context))
            return Guess(self._greedy(context, first), chance)
        finally:
            context.delete(at, len(context))

    def _ids(self, question: Question) -> tuple[list[int], list[int]]:
        """The tokens that it sees, and those of the word after them."""
        tokenizer = self.lm.tokenizer
        text = question.before.rstrip()
        ids, whole = tokenizer.encode(text), tokenizer.encode(f"{text} {question.word}")
        shared = 0
        while shared < len(ids) and ids[shared] == whole[shared]:
            shared += 1
        room = None if self.lm.window is None else max(1, self.lm.window - _LONGEST)
        most = min((n for n in (self.sees, room) if n is not None), default=shared)
        seen = ids[max(0, shared - most) : shared]
        if tokenizer.add_bos:  # such models are lost without it
            seen = [*tokenizer.encode_markup(tokenizer.special["bos_token"]), *seen]
        return seen, whole[shared:]

    def _holding(self, ids: list[int]) -> Context:
        """A context of ``ids``; what is there from the round before is not read again."""
        if self._held != ids[: len(self._held)]:
            self._context, self._held = self.lm.new_context(), []
        self._context.append(ids[len(self._held) :])
        self._held = ids
        return self._context

    def _first(self, logits: Tensor) -> Tensor:
        """(V,) log-probabilities of the tokens that begin a word."""
        if self._begins.any():
            logits = logits.cpu().masked_fill(~self._begins, _NEVER)
        return logits.log_softmax(0)

    def _chance(self, context: Context, first: Tensor, word: list[int]) -> float:
        """The log-probability of the tokens ``word``, and of a word's end behind them."""
        total = float(first[word[0]])
        for at, token in enumerate(word):
            context.append([token])
            following = self.lm.next_logits(context).cpu().log_softmax(0)
            if at + 1 < len(word):
                total += float(following[word[at + 1]])
            else:
                total += float(following.masked_fill(self._goes_on, _NEVER).logsumexp(0))
        return total

    def _greedy(self, context: Context, first: Tensor) -> str:
        ids = [int(first.argmax())]
        while len(ids) < _LONGEST:
            context.append(ids[-1:])
            logits = self.lm.next_logits(context).cpu()
            if len(ids) == 1 and not self._said(ids):  # the space alone is no word yet
                logits = logits.masked_fill(~self._goes_on, _NEVER)
            token = int(logits.argmax())
            if not self._goes_on[token]:
                break
            ids.append(token)
        return self._said(ids)

    def _said(self, ids: list[int]) -> str:
        return self.lm.tokenizer.decode(ids).strip()


def letters(tokenizer: Tokenizer, vocab_size: int) -> tuple[Tensor, Tensor]:
    """(V,) bool each: tokens that begin a word, after a space, and those that go on with one."""
    begins, goes_on = (torch.zeros(vocab_size, dtype=torch.bool) for _ in range(2))
    for number, text in tokenizer.pieces.items():
        begins[number] = text[:1] == " " and (text == " " or text[1:2].isalpha())
        goes_on[number] = text[:1].isalpha()
    return begins, goes_on
