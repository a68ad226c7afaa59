"""Reading little at a time, for models with a reading adapter.

The best few passages go before the model in one prompt, and each of the best in a prompt of its
own: a small reader is better asked several times about little than once about much. How many of
each an adapter may say for its own model (``Asking``): a larger one reads more at once. Where it is
sure that it can answer from the first few of them, the others are not put. The prompt
after which it is surest of that gives the answer; two more are made to answer beside it,
also where the model would rather say that they do not tell, for what is said there tells how sure
an answer may be. By that measure another of the three may be the likelier one: it tells right
answers from wrong ones as well as the first does, and right passages less well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nazx_cli.engine.generator import Opening, Stats
from nazx_cli.reading.attribution import quoted
from nazx_cli.reading.words import STOP_WORDS, stem, words
from nazx_cli.session.calibration import Calibration, differs, is_unsure, surest_first
from nazx_cli.session.citation import NOT_SAID, Quotation, opening, parse
from nazx_cli.session.events import Answer, Delta, Event, Reading
from nazx_cli.session.prompt import Prompt, user_message
from nazx_cli.session.state import Turn

if TYPE_CHECKING:
    from nazx_cli.engine.generator import Candidate
    from nazx_cli.reading.passages import Passage
    from nazx_cli.tokenizer import Tokenizer

Decode = Callable[[Sequence[int]], str]
"""The text of tokens."""
ANSWERED = 3
"""Prompts that are made to answer, at most."""
ENOUGH = 0.9
"""Where the model answers after one of the first prompts with this probability, no others are
put."""
PASSAGE_ROOM = 300
"""Tokens for each passage of a prompt, on average at most."""
ANSWER_TOKENS = 96
"""Tokens of an answer, at most: a reading adapter is trained on short ones."""
_STRANGE = 0.95  # the chance that documents do not say anything of a name that they do not have


@dataclass(frozen=True)
class Asking:
    """How many passages a model is asked about at a time: the ``together`` best in one prompt
    (documents of no more are put whole), and each of the ``apart`` best in one of its own."""

    together: int = 3
    apart: int = 10

    @classmethod
    def of(cls, notes: Mapping[str, Any]) -> Asking:
        """That of an adapter's notes; the default where they hold none that makes sense."""
        try:
            own = notes["asking"]
            found = cls(int(own["together"]), int(own["apart"]))
        except (KeyError, TypeError, ValueError):
            return cls()
        return found if found.together > 0 <= found.apart else cls()

    def to_json(self) -> dict[str, int]:
        """As an adapter's notes hold it."""
        return {"together": self.together, "apart": self.apart}

    @property
    def first(self) -> int:
        """Prompts that are put first: the best passages together, and each of these alone."""
        return 1 + min(self.together, self.apart)

    def opening(self, tokenizer: Tokenizer) -> Opening | None:
        """What the answers to a question's prompts begin with, and which prompts are put; None
        where that is no single token."""
        token = opening(tokenizer)
        return None if token is None else Opening(token, ANSWERED, self.first, ENOUGH)


@dataclass(frozen=True)
class PartAnswer:
    """What one part answered; ``cited`` is the passage that it stands on, if it names one.

    ``opens`` is the log-probability that the model gave to answering at all, and ``logprobs`` are
    those of the answer's own tokens, behind the passage's number. ``rank`` is the place
    of its prompt among the question's, from 0.
    """

    prompt: Prompt
    text: str
    cited: Passage | None
    opens: float
    logprobs: tuple[float, ...]
    finish: str
    rank: int

    @property
    def quotation(self) -> Quotation | None:
        """The sentence that it stands on, if it names a passage."""
        if self.cited is None:
            return None
        return Quotation(self.cited, quoted(self.cited, self.text, self.prompt.question))


def part_answer(prompts: Sequence[Prompt], candidate: Candidate, decode: Decode) -> PartAnswer:
    """Take apart what the model said to one of ``prompts``."""
    prompt, rank = prompts[candidate.prompt], candidate.prompt
    found = parse(decode(candidate.tokens))
    opens = candidate.logprobs[0]
    if found.says_not:  # a model that could not be made to answer
        unlikely = math.log1p(-math.exp(opens) + 1e-9)
        return PartAnswer(prompt, "", None, unlikely, (), "stop", rank)
    cited = None
    at = 1 if found.number is None and len(prompt.passages) == 1 else found.number
    if at is not None and 1 <= at <= len(prompt.passages):
        cited = _holding(found.text, prompt.passages, prompt.passages[at - 1])
    first = 0  # token of the answer itself
    if found.number is not None:
        first = next(
            n
            for n in range(1, len(candidate.tokens) + 1)
            if parse(decode(candidate.tokens[:n])).number is not None
        )
    own = candidate.logprobs[first:]
    return PartAnswer(prompt, found.text, cited, opens, own, candidate.finish, rank)


def _holding(answer: str, passages: Sequence[Passage], named: Passage) -> Passage:
    """The passage that ``answer`` stands on: the one that the model named, unless that has none
    of the answer's words and another one of the prompt has."""
    said = {stem(word) for word in words(answer)} - STOP_WORDS

    def held(passage: Passage) -> int:
        return len(said & {stem(word) for word in words(passage.text)})

    return named if held(named) else max((named, *passages), key=held)


@dataclass(frozen=True)
class Chosen:
    """What stands as the answer: one of the parts' or, where ``says_not``, that the document does
    not say; ``confidence`` is the chance, 0 to 1, that this is right. ``second`` is the next part
    that says something else, with its chance, where the first is unsure."""

    part: PartAnswer
    text: str
    says_not: bool
    confidence: float
    second: tuple[PartAnswer, float] | None = None


def choose(answers: Sequence[PartAnswer], calibration: Calibration) -> Chosen:
    """The one of ``answers`` whose part was surest to answer, the first of equals; that the
    document does not say where none was sure enough."""
    question = answers[0].prompt.question
    sure = calibration.confidences(answers, question)
    ranked = surest_first(answers)
    best = ranked[0]
    if calibration.says_not(answers) or not answers[best].text:
        unlikely = 1 - max(math.exp(answer.opens) for answer in answers)
        return Chosen(answers[best], NOT_SAID, True, unlikely)
    text, second = answers[best].text, None
    if is_unsure(sure[best]):
        others = (at for at in ranked if answers[at].text)
        second = next(
            ((answers[at], sure[at]) for at in others if differs(answers[at].text, text)), None
        )
    return Chosen(answers[best], text, False, sure[best], second)


def passages_of(prompts: Sequence[Prompt]) -> tuple[Passage, ...]:
    """What ``prompts`` hold, each once."""
    return tuple(dict.fromkeys(p for prompt in prompts for p in prompt.passages))


def has_none_of(names: Sequence[str]) -> str:
    """What is told of names in a question that the documents have not."""
    told = " and no ".join(f'"{name}"' for name in names)
    return f"the documents have no {told}"


def taken_for(slips: Mapping[str, str]) -> str:
    """What is told of words in a question that were taken for others."""
    told = ", ".join(f'no "{typed}": taken for "{meant}"' for typed, meant in slips.items())
    return f"the documents have {told}"


def speak_of_nobody(question: str, keep: Callable[[Turn], None]) -> Iterator[Event]:
    """Answer that the document does not say: it has none of the names in ``question``."""
    message = user_message(question)
    keep(Turn(question, message, (), NOT_SAID, interrupted=False, confidence=_STRANGE))
    stats = Stats(0, 0, 0, 0.0, 0.0)
    yield Reading("recall", ())
    yield Delta(NOT_SAID, stats)
    yield Answer(NOT_SAID, (), "stop", stats, "recall", (), _STRANGE)
