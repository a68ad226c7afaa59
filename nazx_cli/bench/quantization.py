"""Workload ``quantization``: what int8 and nf4 cost in quality, and what they save."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nazx_cli.bench.decode import seconds_per_token
from nazx_cli.bench.models import Ours, weight_bytes, zipf_ids
from nazx_cli.bench.results import Row, Spread, one
from nazx_cli.bench.setup import Setup
from nazx_cli.documents.gather import gather
from nazx_cli.engine.language_model import LanguageModel, load_model
from nazx_cli.errors import UsageError
from nazx_cli.quantization.cost import KINDS

NAME = "quantization"
PIECE = 1024  # tokens that are scored together
_PROMPT = 100  # tokens before those that are timed


@dataclass
class Quality:
    """Sums over the text: negative log likelihood, and distance of logits to the original's."""

    predicted: int = 0
    loss: float = 0.0
    positions: int = 0
    error: float = 0.0
    worst: float = 0.0
    agreed: int = 0

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log likelihood of a token."""
        return math.exp(self.loss / self.predicted)

    def add(self, logits: Tensor, ids: Tensor, original: Tensor) -> None:
        """Count a piece: ids (T,), logits and the original's logits (T, V)."""
        losses = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="sum")
        self.loss += float(losses)
        self.predicted += len(ids) - 1
        self.agreed += int((logits.argmax(-1) == original.argmax(-1)).sum())
        self.positions += len(ids)
        distance = (logits - original).abs_()
        self.error += float(distance.mean()) * len(ids)
        self.worst = max(self.worst, float(distance.max()))

    def distances(self) -> dict[str, float]:
        """Mean and largest distance of a logit, and the share of positions whose likeliest
        token is the same."""
        return {
            "mean logit error": self.error / self.positions,
            "largest logit error": self.worst,
            "same likeliest token": self.agreed / self.positions,
        }


def run(setup: Setup) -> Iterator[Row]:
    """For each kind: perplexity and logit error on the text, bytes of weights, seconds per
    token; each beside the unquantized model's."""
    original = setup.lm
    if original.quantization is not None:
        raise UsageError(
            f"the weights of {original.name} are {original.quantization} already",
            "name the model that they were made from",
        )
    models = []
    for kind in KINDS:
        setup.note(f"{NAME}: loading {original.name} as {kind}")
        models.append(load_model(original.folder, dtype=original.dtype, quantize=kind))
    ids = _text_ids(setup)
    base, *found = _qualities([original, *models], ids, setup)
    prompt = zipf_ids(original.config.vocab_size, _PROMPT)
    count = setup.settings.new_tokens
    sides = [partial(seconds_per_token, Ours(lm), prompt, count) for lm in (original, *models)]
    runs = [Spread(seconds) for seconds in setup.alternate(NAME, sides)]
    for lm, quality, seconds in zip(models, found, runs[1:], strict=True):
        kind, text = lm.quantization or "", len(ids)
        beside = partial(Row, NAME, dtype=kind, peer=original.dtype)
        perplexity, bytes_held = one(quality.perplexity), one(weight_bytes(lm))
        yield beside("perplexity", text, "", ours=perplexity, theirs=one(base.perplexity))
        for name, value in quality.distances().items():
            yield Row(NAME, name, text, "", kind, one(value))
        yield beside("weights", 0, "bytes", ours=bytes_held, theirs=one(weight_bytes(original)))
        yield beside("time per token", _PROMPT, "s", ours=seconds, theirs=runs[0])


def _text_ids(setup: Setup) -> Tensor:
    (document, *_) = gather(setup.settings.files).documents
    ids = setup.lm.tokenizer.encode(document.text)[: setup.settings.scored]
    if len(ids) < 2:
        raise UsageError(f"{document.name} is too short to score", "name a longer text")
    return torch.tensor(ids)


def _qualities(models: Sequence[LanguageModel], ids: Tensor, setup: Setup) -> list[Quality]:
    """Of each model, the first being the original."""
    found = [Quality() for _ in models]
    pieces = [piece for piece in torch.split(ids, PIECE) if len(piece) > 1]
    for number, piece in enumerate(pieces, 1):
        setup.note(f"{NAME}: text {number} of {len(pieces)}")
        original = models[0].logits(piece)
        found[0].add(original, piece, original)
        for quality, lm in zip(found[1:], models[1:], strict=True):
            quality.add(lm.logits(piece), piece, original)
    return found
