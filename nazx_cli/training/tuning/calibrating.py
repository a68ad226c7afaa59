"""Fitting how sure answers are said to be, on held-out questions.

Each question is put as in use, in the parts that recall makes, and each part's answer is scored
by its token F1. The weights of ``session.calibration`` are those of the logistic model that tells
the scores best; the bar for "does not say" is set so that few questions that have an answer are
turned away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from nazx_cli.documents.document import Document
from nazx_cli.engine.sampling import Sampling
from nazx_cli.evaluation.data.stories import Story
from nazx_cli.evaluation.words import token_f1
from nazx_cli.reading.library import Library
from nazx_cli.session.calibration import FEATURES, Calibration, features
from nazx_cli.session.parts import ANSWER_TOKENS, Asking, PartAnswer, part_answer
from nazx_cli.session.prompt import Prompter
from nazx_cli.session.reader import Reader
from nazx_cli.session.settings import SessionSettings
from nazx_cli.session.templating.templates import stop_ids
from nazx_cli.training.tuning.books import BETWEEN, drawn

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel

OnQuestion = Callable[[int, int], None]
"""Told how many questions of how many were put."""
TURNED_AWAY = 0.03
"""Share of the questions that have an answer which may be held back as not said."""
_DECAY = 1e-3  # of the weights, so that few questions cannot drive them far


@dataclass(frozen=True)
class Tried:
    """A question that has an answer, what its parts answered, and how well, 0 to 1 each."""

    question: str
    answers: tuple[PartAnswer, ...]
    scores: tuple[float, ...]


def try_out(
    lm: LanguageModel,
    stories: Sequence[Story],
    count: int,
    asking: Asking,
    on_question: OnQuestion | None = None,
) -> list[Tried]:
    """Put ``count`` questions of ``stories``: a third of them to a book of all stories, a third
    to their own story, a third to its right sections alone, as ``asking`` has it; the same ones in
    every run. ``lm`` must have a reader merged."""
    asked = drawn(stories, lambda question: question.answers)[:count]
    book = _reader(lm, BETWEEN.join(story.text for story in stories))
    tried: list[Tried] = []
    for number, (story, question) in enumerate(asked):
        reader = book
        if number % 3:
            spans = story.spans(question.sections) if number % 3 == 2 else ()
            text = "\n\n".join(story.text[first:last] for first, last in spans)
            reader = _reader(lm, text or story.text)
        found = _answers(lm, reader, " ".join(question.text.split()), asking)
        if found:
            scores = tuple(max(token_f1(a.text, r) for r in question.answers) for a in found)
            tried.append(Tried(question.text, found, scores))
        if on_question:
            on_question(number + 1, len(asked))
    return tried


def fit(tried: Sequence[Tried]) -> Calibration:
    """What tells the scores of ``tried`` best; the default where there are none."""
    rows = [row for each in tried for row in features(each.answers, each.question)]
    if not rows:
        return Calibration()
    x = torch.tensor([[row[name] for name in FEATURES] for row in rows], dtype=torch.float64)
    y = torch.tensor([score for each in tried for score in each.scores], dtype=torch.float64)
    weights = torch.zeros(len(FEATURES), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(x @ weights, y) + _DECAY * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    fitted = zip(FEATURES, weights.tolist(), strict=True)
    several = _bar([each for each in tried if len(each.answers) > 1])
    alone = _bar([each for each in tried if len(each.answers) == 1])
    return Calibration({name: round(value, 4) for name, value in fitted}, several, alone)


def _bar(tried: Sequence[Tried]) -> float:
    """What the surest part is below for ``TURNED_AWAY`` of the questions."""
    if not tried:
        return Calibration.refuse
    surest = torch.tensor([max(a.opens for a in each.answers) for each in tried]).exp()
    return round(float(surest.quantile(TURNED_AWAY)), 5)


def _reader(lm: LanguageModel, text: str) -> Reader:
    library = Library.build([Document("book.txt", text, "text")], lm.tokenizer)
    prompter = Prompter(lm.tokenizer, SessionSettings(), lm.window)
    return Reader(library, prompter, "recall", lambda message, limit: "")


def _answers(
    lm: LanguageModel, reader: Reader, question: str, asking: Asking
) -> tuple[PartAnswer, ...]:
    prompts = reader.parts(question, (), asking)
    candidates = lm.answer_each(
        [reader.prompter.ids([], prompt.message) for prompt in prompts],
        max_tokens=ANSWER_TOKENS,
        sampling=Sampling(),
        stop_ids=stop_ids(lm.tokenizer),
        opening=asking.opening(lm.tokenizer),
    )
    return tuple(part_answer(prompts, each, lm.tokenizer.decode) for each in candidates)
