"""Reading little at a time, for models with a reading adapter.

The best passages go before the model in several small prompts side by side, and of the answers
the surest one stands: a small reader is better asked several times about little than once about
much. What surest means was chosen on FairytaleQA stories held out from training, which the
published figures do not use either.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nazx_cli.reading.words import STOP_WORDS, stem, words
from nazx_cli.session.citation import NOT_SAID, parse
from nazx_cli.session.prompt import Prompt
from nazx_cli.session.state import Message

if TYPE_CHECKING:
    from nazx_cli.engine.generator import Candidate
    from nazx_cli.reading.passages import Passage
    from nazx_cli.session.state import History

PARTS = 4
"""Prompts that a question is asked in, at most."""
PASSAGES = 3
"""Passages in each of them."""
ROOM = 900
"""Tokens that the passages of one prompt take, at most."""
ANSWER_TOKENS = 96
"""Tokens of an answer, at most: a reading adapter is trained on short ones."""
_LATER = 0.95  # what a part's answer counts beside one of the part before it

_POINTS_BACK = re.compile(
    r"\b(he|she|it|they|him|her|his|hers|its|them|their|theirs|this|that|these|those)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class PartAnswer:
    """What one part answered; ``cited`` is the passage that it stands on, if it names one.

    ``confidence``, 0 to 1, is the probability of the first token, by which it is decided whether
    the passages answer at all, times the geometric mean of all tokens' probabilities.
    """

    prompt: Prompt
    text: str
    says_not: bool
    cited: Passage | None
    confidence: float
    finish: str


def part_answer(prompt: Prompt, text: str, candidate: Candidate) -> PartAnswer:
    """Take apart what the model said to ``prompt``; ``text`` is the candidate's, decoded."""
    found = parse(text)
    cited = None
    if not found.says_not:
        at = 1 if found.number is None and len(prompt.passages) == 1 else found.number
        if at is not None and 1 <= at <= len(prompt.passages):
            cited = _holding(found.text, prompt.passages, prompt.passages[at - 1])
    said = NOT_SAID if found.says_not else found.text
    sure = math.exp(candidate.logprobs[0] + candidate.mean_logprob)
    return PartAnswer(prompt, said, found.says_not, cited, sure, candidate.finish)


def _holding(answer: str, passages: Sequence[Passage], named: Passage) -> Passage:
    """The passage that ``answer`` stands on: the one that the model named, unless another one of
    the prompt has more of the answer's words."""
    said = {stem(word) for word in words(answer)} - STOP_WORDS

    def held(passage: Passage) -> int:
        return len(said & {stem(word) for word in words(passage.text)})

    return max((named, *passages), key=held)


def choose(answers: Sequence[PartAnswer]) -> PartAnswer:
    """The surest answer; that the document does not say only where no part says anything else.

    ``answers`` are in the order of their passages' rank: a later one must be surer by a little
    than one before it.
    """
    ranked = list(enumerate(answers))
    saying = [(at, found) for at, found in ranked if found.text and not found.says_not]
    return max(saying or ranked, key=lambda item: item[1].confidence * _LATER ** item[0])[1]


def followed_turn(question: str, history: History) -> list[Message]:
    """The turn that ``question`` speaks of: the last one, where a pronoun points back to it."""
    if not history.turns or not _POINTS_BACK.search(question):
        return []
    last = history.turns[-1]
    return [Message("user", last.question), Message("assistant", parse(last.answer).text)]
