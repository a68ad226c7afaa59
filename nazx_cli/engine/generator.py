"""Generating token after token: one answer step by step, or answers to several prompts at once,
each with how likely the model found its tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nazx_cli.context.context import Context
from nazx_cli.engine.grounding import Grounding
from nazx_cli.engine.lookup import MOST_DRAFTS, LogitsAhead, Lookup
from nazx_cli.engine.loops import Repeats
from nazx_cli.engine.sampler import Sampler
from nazx_cli.engine.sampling import Sampling
from nazx_cli.model.attention.batch import PromptBatch
from nazx_cli.model.decoder import Decoder
from nazx_cli.tokenizer import Tokenizer


@dataclass(frozen=True)
class Stats:
    """Figures of an answer so far; seconds count from the call of ``generate``. ``runs``: how often
    the model was run, where it ran for this answer alone. ``prompt``: tokens that were given, of
    all prompts where several are asked."""

    context_tokens: int
    context_bytes: int
    generated: int
    first_token_seconds: float
    tokens_per_second: float
    runs: int | None = None
    prompt: int = 0


@dataclass(frozen=True)
class Step:
    """One generated token.

    ``text`` is all that can be told so far and ``delta`` what this step added to it; in neither is
    a character whose bytes are not complete, and what repeats earlier text, until something else
    follows. ``finish`` is None until the last step: ``stop`` after a stop token (which adds no
    text), ``length`` at the limit, ``loop`` where the answer repeats itself over and over: the
    repeats are then in the text no more than in the context. ``logits`` (V,) float32 are what it
    was chosen from, the model's own; they hold until the next step.
    """

    token: int
    text: str
    delta: str
    finish: str | None
    stats: Stats
    logits: Tensor | None = field(default=None, repr=False, compare=False)


def generate(
    logits_ahead: LogitsAhead,
    tokenizer: Tokenizer,
    context: Context,
    max_tokens: int,
    sampling: Sampling,
    stop_ids: frozenset[int],
    grounding: Grounding | None = None,
    most_drafts: int = MOST_DRAFTS,
) -> Iterator[Step]:
    """Yield up to ``max_tokens`` steps; each token is in ``context`` before it is yielded.

    A stop token ends the answer and is not added to the context. The repeat penalty looks at
    the answer alone: words of the prompt, which an answer must often repeat, are free. A token
    that does not fit ``grounding`` loses against a likely one that does. With ``most_drafts`` the
    model runs on up to so many tokens that are likely to follow: see ``engine.lookup``; the steps
    are the same for any number. ``NazxError`` where the weights are damaged.
    Whoever iterates may stop at any time: what was yielded stays in the context, nothing else has
    changed; until then the context is left alone.
    """
    begin, prompt = time.perf_counter(), len(context)
    first = 0.0
    sampler, said = Sampler(sampling, grounding), _Said(tokenizer)
    lookup = Lookup(logits_ahead, context, most_drafts)
    told = ""
    for count in range(1, max_tokens + 1):
        logits = lookup.logits()
        token = sampler.choose(logits, said.tokens)
        if count == 1:
            first = time.perf_counter() - begin
        stopped = token in stop_ids
        if not stopped:
            context.append([token])
            said.push(token)
            lookup.push(token)
        finish = "stop" if stopped else "length" if count == max_tokens else None
        if said.repeats.is_loop:
            finish = "loop"
            context.delete(len(context) - (len(said.tokens) - said.repeats.kept), len(context))
        elif finish:
            said.flush()
        end = len(said.text) if finish in ("stop", "length") else said.repeats.begin
        delta, told = said.text[len(told) : end], said.text[:end]
        speed = _speed(count, time.perf_counter() - begin - first)
        held = (len(context), context.nbytes)
        stats = Stats(*held, count, first, speed, lookup.runs, prompt)
        yield Step(token, told, delta, finish, stats, logits)
        if finish:
            return


class _Said:
    """The tokens of an answer so far, their text, and what of it repeats itself."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokens: list[int] = []
        self.text = ""
        self.repeats = Repeats()
        self._stream = tokenizer.stream()

    def push(self, token: int) -> None:
        self.tokens.append(token)
        self.text += self._stream.push(token)
        self.repeats.push(token, self.text)

    def flush(self) -> None:
        """Take in what the last tokens left open."""
        self.text += self._stream.flush()


def _speed(count: int, seconds: float) -> float:
    return (count - 1) / seconds if count > 1 and seconds > 0 else 0.0


@dataclass(frozen=True)
class Candidate:
    """The answer to the ``prompt``-th of several prompts, counted from 0; ``put`` of them were put.

    ``tokens`` are without the stop token; ``logprobs`` (natural logarithms, of the model's own
    distribution) are with it, where there was one. ``finish`` is as for ``Step``; of one that is
    ``loop`` the repeats are in neither.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: str
    prompt: int
    put: int


@dataclass(frozen=True)
class Opening:
    """What every answer begins with, whatever the model would say first: ``token``.

    Only ``most`` prompts are answered, those after which it is likeliest. The ``first`` prompts
    are put first, and the others only if it is less likely than ``enough`` after each of them.
    """

    token: int
    most: int | None = None
    first: int | None = None
    enough: float = 1.0


def answer_each(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    sampling: Sampling,
    stop_ids: frozenset[int],
    opening: Opening | None = None,
    grounding: Grounding | None = None,
    on_token: Callable[[int], None] | None = None,
) -> list[Candidate]:
    """One answer of 1 to ``max_tokens`` tokens for each prompt, or for those that ``opening``
    leaves, in their order.

    ``grounding`` as for ``generate``, and so an answer that goes round in circles ends.
    ``on_token`` is told after every round how many tokens the longest answer has, of prompts that
    were put together. Prompts must
    fit the model's window together with ``max_tokens``; each row draws with its own generator of
    the same seed, so a prompt's answer does not depend on its neighbours.
    """
    batches = _begun(decoder, prompts, max_tokens, opening)
    put = sum(len(batch.lengths) for batch in batches)
    chosen = list(range(put))
    if opening is not None and opening.most is not None and opening.most < put:
        begins = torch.cat([batch.logits.log_softmax(-1)[:, opening.token] for batch in batches])
        chosen = sorted(begins.topk(opening.most).indices.tolist())
    found: list[Candidate] = []
    before = 0
    for batch in batches:
        after = before + len(batch.lengths)
        rows = [row for row in chosen if before <= row < after]
        if rows:
            batch.keep([row - before for row in rows])
            answers = [_Answer(_Said(tokenizer), Sampler(sampling, grounding)) for _ in rows]
            token = None if opening is None else opening.token
            _go_on(batch, answers, max_tokens, stop_ids, token, on_token)
            found += [each.candidate(row, put) for each, row in zip(answers, rows, strict=True)]
        before = after
    return found


def _begun(
    decoder: Decoder, prompts: Sequence[Sequence[int]], room: int, opening: Opening | None
) -> list[PromptBatch]:
    """The prompts that are put, in their order."""
    first = len(prompts) if opening is None or opening.first is None else opening.first
    batches = [PromptBatch(decoder, prompts[:first], room)] if prompts else []
    if opening is not None and first < len(prompts):
        likely = batches[0].logits.softmax(-1)[:, opening.token]
        if float(likely.max()) < opening.enough:
            batches.append(PromptBatch(decoder, prompts[first:], room))
    return batches


@dataclass
class _Answer:
    """The answer to one of several prompts, as far as it goes."""

    said: _Said
    sampler: Sampler
    logprobs: list[float] = field(default_factory=list)
    finish: str = "length"

    def takes(self, token: int, likely: float, stop_ids: frozenset[int]) -> bool:
        """Take the next token, of log-probability ``likely``; whether another one follows."""
        self.logprobs.append(likely)
        if token in stop_ids:
            self.finish = "stop"
            return False
        self.said.push(token)
        if self.said.repeats.is_loop:
            self.finish = "loop"
            return False
        return True

    def candidate(self, prompt: int, put: int) -> Candidate:
        """The same as that to the ``prompt``-th of ``put`` prompts."""
        kept = self.said.repeats.kept if self.finish == "loop" else None
        tokens, logprobs = tuple(self.said.tokens[:kept]), tuple(self.logprobs[:kept])
        return Candidate(tokens, logprobs, self.finish, prompt, put)


def _go_on(
    batch: PromptBatch,
    answers: Sequence[_Answer],
    max_tokens: int,
    stop_ids: frozenset[int],
    opening: int | None,
    on_token: Callable[[int], None] | None,
) -> None:
    """Give ``answers``, one for each row of ``batch``, to their ends; the batch is used up."""
    running = list(answers)
    for count in range(1, max_tokens + 1):
        likely = batch.logits.log_softmax(-1)
        going: list[int] = []  # rows of the batch
        for at, answer in enumerate(running):
            if opening is not None and count == 1:
                token = answer.sampler.begin(opening)
            else:
                token = answer.sampler.choose(batch.logits[at], answer.said.tokens)
            if answer.takes(token, float(likely[at, token]), stop_ids):
                going.append(at)
        if on_token:
            on_token(count)
        if not going or count == max_tokens:
            return
        if len(going) < len(running):
            batch.keep(going)
            running = [running[at] for at in going]
        batch.step([answer.said.tokens[-1] for answer in running])
