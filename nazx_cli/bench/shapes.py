"""Models of a named one's shapes with random weights, and token ids as texts have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nazx_cli.catalog.registry import Registry
from nazx_cli.config import AttentionConfig, ModelConfig
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.errors import UsageError
from nazx_cli.memory.estimate import distinct_tokens
from nazx_cli.model.decoder import Decoder

_SPREAD = 0.02  # of random weights, as GPT-NeoX starts from
_SHIFT = 2.7  # of rank, as Mandelbrot found it for English


def inattention_config(name: str) -> ModelConfig:
    """The registry's configuration of ``name``, with InAttention."""
    registry = Registry.load()
    entry = registry.find(name)
    if entry is None:
        raise UsageError(f"no model is called {name!r}", f"choose from {', '.join(registry.names)}")
    return replace(entry.config, attention=AttentionConfig("inattention"))


def random_decoder(config: ModelConfig, dtype: torch.dtype, seed: int = 0) -> Decoder:
    """A decoder with random weights: how fast it is does not depend on what they are."""
    with torch.device("meta"):
        decoder = Decoder(config)
    decoder = decoder.to(dtype).to_empty(device="cpu")
    if config.tie_embeddings:
        decoder.head.weight = decoder.embed.weight
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in decoder.named_parameters():
        fill_random(name, parameter.requires_grad_(False), generator)
    return decoder.eval()


def random_model(name: str, decoder: Decoder, layout: str) -> LanguageModel:
    """A model that gives logits; it has no folder, and so no tokenizer."""
    return LanguageModel(name, decoder, Path(), layout)


def fill_random(name: str, tensor: Tensor, generator: torch.Generator) -> None:
    """Fill a weight in place: matrices at random, norms with 1, biases with 0."""
    if tensor.dim() > 1:
        tensor.normal_(0.0, _SPREAD, generator=generator)
    else:
        tensor.fill_(1.0 if name.endswith("weight") else 0.0)


def zipf_ids(vocab_size: int, count: int, seed: int = 0) -> Tensor:
    """(count,) int32 ids by Zipf's law: the token of rank r is drawn with p ~ 1 / r."""
    return _drawn(_shares(vocab_size, 1.0, 0.0), count, seed)


def prose_ids(vocab_size: int, count: int, seed: int = 0) -> Tensor:
    """(count,) int32 ids with as many distinct ones as English prose of that length has.

    p ~ 1 / (r + 2.7)^s, Mandelbrot's form of Zipf's law, with s such that the distinct ids to
    be expected are ``memory.estimate.distinct_tokens``.
    """
    wanted = distinct_tokens(count, vocab_size)
    low, high = 0.0, 8.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (
            (middle, high)
            if _expected_distinct(_shares(vocab_size, middle, _SHIFT), count) > wanted
            else (low, middle)
        )
    return _drawn(_shares(vocab_size, low, _SHIFT), count, seed)


def _shares(vocab_size: int, exponent: float, shift: float) -> Tensor:
    """(V,) float64 probabilities by rank."""
    ranks = torch.arange(1, vocab_size + 1, dtype=torch.float64)
    shares = (ranks + shift) ** -exponent
    return shares / shares.sum()


def _expected_distinct(shares: Tensor, count: int) -> float:
    return float(-torch.expm1(count * torch.log1p(-shares)).sum())


def _drawn(shares: Tensor, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    edges = shares.cumsum(0)
    drawn = torch.rand(count, generator=generator, dtype=torch.float64) * edges[-1]
    ids = torch.searchsorted(edges, drawn).clamp_(max=len(shares) - 1)
    return ids.to(torch.int32)
