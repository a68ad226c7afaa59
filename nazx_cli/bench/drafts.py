"""Workload ``drafts``: answers with tokens run ahead that are likely to follow, and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from nazx_cli.bench.results import Row, Spread, timed
from nazx_cli.bench.setup import Setup
from nazx_cli.documents.gather import gather
from nazx_cli.engine.generator import Step
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.engine.lookup import MOST_DRAFTS
from nazx_cli.engine.sampling import Sampling
from nazx_cli.errors import UsageError
from nazx_cli.session.state import Message
from nazx_cli.session.templating.templates import render

NAME = "drafts"
_ASKED = {  # what is asked about each text; only answers that repeat it can gain
    "a quote": "What is said first, and by whom? Answer with a quote.",
    "a summary": "Summarize this text in a few sentences.",
    "a story": None,
}
_TEXTS, _EACH = 4, 600  # texts, and tokens of each
_LONGER = 6  # times as many tokens in an answer as other workloads decode


def run(setup: Setup) -> Iterator[Row]:
    """For each kind of answer: seconds of all of them with and without drafts, in turns, and how
    many tokens each run of the model gave."""
    lm = setup.lm
    texts = _texts(setup)
    for kind, question in _ASKED.items():
        prompts = [_prompt(lm, text, question) for text in texts[: len(texts) if question else 1]]
        answer = partial(_answer, lm, _LONGER * setup.settings.new_tokens)
        both = [[answer(most, prompt) for prompt in prompts] for most in (MOST_DRAFTS, 0)]
        tokens = sum(map(len, both[0]))
        runs = sum(steps[-1].stats.runs or 0 for steps in both[0])
        alike = sum(
            [step.token for step in a] == [step.token for step in b]
            for a, b in zip(*both, strict=True)
        )
        sides = [timed(_each, partial(answer, most), prompts) for most in (MOST_DRAFTS, 0)]
        ours, theirs = setup.alternate(NAME, sides, warm_up=False)  # done above
        yield Row(
            NAME,
            kind,
            sum(map(len, prompts)) // len(prompts),
            "s",
            lm.dtype,
            Spread(ours),
            peer="without drafts",
            theirs=Spread(theirs),
            details={"tokens": tokens, "tokens per run": tokens / runs, "answers alike": alike},
            note=f"{tokens / runs:.2f} tokens a run, {alike} of {len(prompts)} answers alike",
        )


def _texts(setup: Setup) -> list[list[int]]:
    (document, *_) = gather(setup.settings.files).documents
    ids = setup.lm.tokenizer.encode_document(document.text).ids.tolist()
    if len(ids) < _EACH:
        raise UsageError(f"{document.name} is too short to ask about", "name a longer text")
    apart = max(1, len(ids) // _TEXTS)
    return [ids[at : at + _EACH] for at in range(0, len(ids) - _EACH + 1, apart)][:_TEXTS]


def _prompt(lm: LanguageModel, text: Sequence[int], question: str | None) -> list[int]:
    if question is None:
        return render(lm.tokenizer, [Message("user", "Write a story about a fox.")])
    about = f"{lm.tokenizer.decode(text)}\n\n{question}"
    return render(lm.tokenizer, [Message("user", about)])


def _answer(lm: LanguageModel, tokens: int, most: int, prompt: Sequence[int]) -> list[Step]:
    context = lm.new_context()
    context.append(prompt)
    greedy = Sampling(temperature=0.0)
    return list(lm.generate(context, max_tokens=tokens, sampling=greedy, most_drafts=most))


def _each(answer: Callable[[Sequence[int]], object], prompts: Sequence[Sequence[int]]) -> None:
    for prompt in prompts:
        answer(prompt)
