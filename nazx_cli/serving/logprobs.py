"""How likely the model found the tokens that it gave, and what else it might have given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nazx_cli.engine.generator import Step
    from nazx_cli.tokenizer import Tokenizer

_LEAST = -9999.0  # JSON has no infinity


@dataclass(frozen=True)
class TokenChances:
    """A token's text and the natural logarithm of its probability, by the model's own distribution;
    ``others`` are the likeliest in its place, itself perhaps among them."""

    text: str
    logprob: float
    others: tuple[TokenChances, ...] = ()

    @property
    def record(self) -> dict[str, Any]:
        """As chat completions have it; the bytes are null of part of a character."""
        own: dict[str, Any] = {"token": self.text, "logprob": self.logprob, "bytes": None}
        if "\ufffd" not in self.text:
            own["bytes"] = list(self.text.encode())
        return own


def chances(step: Step, tokenizer: Tokenizer, others: int) -> TokenChances | None:
    """Of the token of ``step``; None of one that only ends the answer."""
    if step.logits is None or step.finish == "stop":
        return None
    likely = step.logits.detach().float().cpu().log_softmax(-1)

    def told(token: int, more: tuple[TokenChances, ...] = ()) -> TokenChances:
        text = tokenizer.decode([token], skip_special=False)
        return TokenChances(text, max(_LEAST, float(likely[token])), more)

    best = likely.topk(min(others, len(likely))).indices.tolist()
    return told(step.token, tuple(told(token) for token in best))


def of_chat(tokens: Sequence[TokenChances]) -> dict[str, Any]:
    """``logprobs`` of a choice of a chat completion."""
    content = [
        token.record | {"top_logprobs": [other.record for other in token.others]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def of_completion(tokens: Sequence[TokenChances], offset: int = 0) -> dict[str, Any]:
    """``logprobs`` of a choice of a completion; ``offset`` is where its text begins."""
    offsets = [offset]
    for token in tokens:
        offsets.append(offsets[-1] + len(token.text))
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{o.text: o.logprob for o in token.others} for token in tokens],
        "text_offset": offsets[:-1],
    }
