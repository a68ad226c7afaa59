"""Workload ``quantization``: what int8 and nf4 cost in quality, and what they save."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nazx_cli.bench.engine import greedy, prefilled
from nazx_cli.bench.results import Row, Spread, one
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.shapes import zipf_ids
from nazx_cli.bench.timing import Side, alternate, clock
from nazx_cli.documents.gather import gather
from nazx_cli.engine.language_model import LanguageModel, load_model
from nazx_cli.errors import UsageError
from nazx_cli.quantization.cost import KINDS

NAME = "quantization"
PIECE = 1024  # tokens that are scored together
_TOKENS = 4 * PIECE  # of the text, from its start
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
    runs = _seconds([original, *models], setup)
    for at, (lm, quality) in enumerate(zip(models, found, strict=True), 1):
        kind, count = lm.quantization or "", len(ids)
        yield Row(
            NAME, "perplexity", count, "", kind, one(quality.perplexity), peer=original.dtype,
            theirs=one(base.perplexity),
        )  # fmt: skip
        for name, value in quality.distances().items():
            yield Row(NAME, name, count, "", kind, one(value))
        yield Row(
            NAME, "weights", 0, "bytes", kind, one(weight_bytes(lm)), peer=original.dtype,
            theirs=one(weight_bytes(original)),
        )  # fmt: skip
        yield Row(
            NAME, "time per token", _PROMPT, "s", kind, Spread(runs[at]), peer=original.dtype,
            theirs=Spread(runs[0]),
        )  # fmt: skip


def weight_bytes(lm: LanguageModel) -> int:
    """Bytes of everything that the model's weights take in memory."""
    tensors = {*lm.decoder.parameters(), *lm.decoder.buffers()}
    return sum(tensor.nbytes for tensor in tensors)


def _text_ids(setup: Setup) -> Tensor:
    (document, *_) = gather(setup.settings.files).documents
    ids = setup.lm.tokenizer.encode(document.text)[:_TOKENS]
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


def _seconds(models: Sequence[LanguageModel], setup: Setup) -> list[tuple[float, ...]]:
    count = setup.settings.new_tokens
    ids = zipf_ids(models[0].config.vocab_size, _PROMPT)

    def side(lm: LanguageModel) -> Side:
        def run_once() -> float:
            context, logits = prefilled(lm, ids)
            token = int(logits.argmax())
            return clock(lambda: greedy(lm, context, token, count))[0] / count

        return run_once

    sides = [side(lm) for lm in models]
    return alternate(sides, setup.settings.repeat, on_round=setup.rounds(NAME))
