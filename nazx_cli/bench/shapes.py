"""Models of a named one's shapes with random weights, and token ids as texts have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nazx_cli.config import AttentionConfig, ModelConfig
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.errors import UsageError
from nazx_cli.model.decoder import Decoder
from nazx_cli.weights.registry import Registry

_SPREAD = 0.02  # of random weights, as GPT-NeoX starts from
_EXPONENT = 1.05  # of rank: 100,000 ids then have 17,000 distinct ones, twice as many as a book


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
    """(count,) int32 ids whose frequencies fall with their rank, as those of words do."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.arange(1, vocab_size + 1, dtype=torch.float64) ** -_EXPONENT
    edges = shares.cumsum(0)
    drawn = torch.rand(count, generator=generator, dtype=torch.float64) * edges[-1]
    ids = torch.searchsorted(edges, drawn).clamp_(max=vocab_size - 1)
    return ids.to(torch.int32)
