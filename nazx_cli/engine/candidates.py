"""Answers to several prompts at once, each with how likely the model found its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nazx_cli.engine.sampling import Sampler, Sampling
from nazx_cli.model.attention.batch import PromptBatch
from nazx_cli.model.decoder import Decoder


@dataclass(frozen=True)
class Candidate:
    """The answer to one prompt.

    ``tokens`` are without the stop token; ``logprobs`` (natural logarithms, of the model's own
    distribution) are with it, where there was one. ``finish`` is ``stop`` or ``length``.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: str

    @property
    def mean_logprob(self) -> float:
        """The logarithm of the geometric mean of the tokens' probabilities."""
        return sum(self.logprobs) / len(self.logprobs)


def answer_each(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    sampling: Sampling,
    stop_ids: frozenset[int],
    on_token: Callable[[int], None] | None = None,
) -> list[Candidate]:
    """One answer of 1 to ``max_tokens`` tokens for each prompt, in their order.

    ``on_token`` is told after every round how many tokens the longest answer has. Prompts must
    fit the model's window together with ``max_tokens``; each row draws with its own generator of
    the same seed, so a prompt's answer does not depend on its neighbours.
    """
    if not prompts:
        return []
    batch = PromptBatch(decoder, prompts, max_tokens)
    samplers = [Sampler(sampling) for _ in prompts]
    tokens: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    finish = ["length"] * len(prompts)
    running = list(range(len(prompts)))
    for count in range(1, max_tokens + 1):
        likely = batch.logits.log_softmax(-1)
        going: list[int] = []  # rows of the batch
        for at, row in enumerate(running):
            token = samplers[row].choose(batch.logits[at], tokens[row])
            logprobs[row].append(float(likely[at, token]))
            if token in stop_ids:
                finish[row] = "stop"
            else:
                tokens[row].append(token)
                going.append(at)
        if on_token:
            on_token(count)
        if not going or count == max_tokens:
            break
        if len(going) < len(running):
            batch.keep(going)
            running = [running[at] for at in going]
        batch.step([tokens[row][-1] for row in running])
    return [
        Candidate(tuple(t), tuple(p), f) for t, p, f in zip(tokens, logprobs, finish, strict=True)
    ]
