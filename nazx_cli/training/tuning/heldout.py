"""Held-out questions, answered greedily as the training goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nazx_cli.documents.document import Document
from nazx_cli.engine.sampling import Sampling
from nazx_cli.evaluation.data.stories import Story
from nazx_cli.evaluation.words import token_f1
from nazx_cli.reading.library import Library
from nazx_cli.session.citation import parse
from nazx_cli.session.prompt import form_of, user_message
from nazx_cli.session.templating.templates import render, stop_ids
from nazx_cli.training.tuning.books import drawn

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.tokenizer import Tokenizer

_MOST_TOKENS = 40
_LONGEST_SECTION = 4000  # characters


@dataclass(frozen=True)
class HeldQuestion:
    """A prompt with the right section, as ids, and the reference answers (none: the passages do
    not say)."""

    prompt: tuple[int, ...]
    answers: tuple[str, ...]


def held_questions(
    stories: Sequence[Story], tokenizer: Tokenizer, count: int
) -> list[HeldQuestion]:
    """``count`` questions of ``stories``, each with its sections alone, the same in every run."""
    found: list[HeldQuestion] = []
    for story, question in drawn(stories, lambda question: question.sections):
        texts = [section.text for section in story.sections if section.id in question.sections]
        text = "\n\n".join(texts)
        if len(found) == count or not text or len(text) > _LONGEST_SECTION:
            continue
        library = Library.build([Document(f"{story.title}.txt", text, "text")], tokenizer)
        passages = tuple(library.merged(library.passages))
        message = user_message(question.text, passages, form=form_of(tokenizer))
        found.append(HeldQuestion(tuple(render(tokenizer, [message])), question.answers))
    return found


def answer_figures(lm: LanguageModel, asked: Sequence[HeldQuestion]) -> dict[str, float]:
    """Mean token F1, where a refusal counts as nothing said, and how often it was said that the
    document does not say."""
    scores: list[float] = []
    refusals = 0
    for question in asked:
        context = lm.new_context()
        context.append(list(question.prompt))
        stops = stop_ids(lm.tokenizer)
        steps = lm.generate(context, max_tokens=_MOST_TOKENS, sampling=Sampling(), stop_ids=stops)
        said = parse("".join(step.delta for step in steps))
        refusals += said.says_not
        text = "" if said.says_not else said.text
        scores.append(max((token_f1(text, each) for each in question.answers or ("",)), default=0))
    count = max(1, len(scores))
    return {"f1": round(sum(scores) / count, 4), "says_not": round(refusals / count, 4)}
