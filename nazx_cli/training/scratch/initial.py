"""Shapes of new models, and the random weights that they begin with."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch

from nazx_cli.config import AttentionConfig, ModelConfig
from nazx_cli.errors import UsageError
from nazx_cli.model.decoder import Decoder
from nazx_cli.names import DEFAULT_SINKS

_HEAD = 64  # features of a head, where the width is a multiple of it


@dataclass(frozen=True)
class Shape:
    """A GPT-NeoX decoder: ``layers`` of ``width`` features, trained on ``context`` tokens;
    ``tied``: its embeddings give the output too."""

    layers: int = 8
    width: int = 256
    context: int = 512
    vocab_size: int = 8192
    tied: bool = False

    def config(self, attention: AttentionConfig) -> dict[str, Any]:
        """The ``config.json`` of a model of this shape."""
        heads = self.width // _HEAD if self.width % _HEAD == 0 else 1
        return {
            "model_type": "nazx",
            "base_model_type": "gpt_neox",
            "vocab_size": self.vocab_size,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "intermediate_size": 4 * self.width,
            "max_position_embeddings": self.context,
            "hidden_act": "gelu_new",
            "rotary_pct": 0.25,
            "use_parallel_residual": False,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "float32",
            "attention": attention.to_dict(),
        }


def parse_attention(text: str) -> AttentionConfig:
    """``inattention[:INITIAL]``, ``windowed[:WINDOW[:SINKS]]`` or ``full``; ``UsageError``."""
    kind, *rest = text.split(":")
    numbers = [int(each) for each in rest if each.isdecimal() and int(each) < 1 << 31]
    if len(numbers) == len(rest):
        if kind == "inattention" and len(numbers) <= 1:
            initial = numbers[0] if numbers else 1
            return AttentionConfig("inattention", initial_window=initial)
        if kind == "windowed" and len(numbers) <= 2:
            window, sinks = [*numbers, *(128, DEFAULT_SINKS)[len(numbers) :]]
            return AttentionConfig("windowed", window, sinks)
        if kind == "full" and not numbers:
            return AttentionConfig("full")
    raise UsageError(
        f"{text!r:.60} is no attention that can be trained",
        "try inattention, inattention:3, windowed:128 or full",
    )


def spelled(attention: AttentionConfig) -> str:
    """What ``parse_attention`` reads back."""
    if attention.kind == "windowed":
        return f"windowed:{attention.local_window}:{attention.sink_tokens}"
    more = f":{attention.initial_window}" if attention.initial_window > 1 else ""
    return f"{attention.kind}{more}"


def new_decoder(config: ModelConfig, seed: int) -> Decoder:
    """A decoder with random float32 weights on the CPU, the same for a seed.

    Deviations are those of GPT-NeoX: sqrt(2 / (5 C)), and 2 / (L sqrt(C)) for matrices that
    write into the residual stream.
    """
    generator = torch.Generator().manual_seed(seed)
    decoder = Decoder(config)
    c = config.hidden_size
    small, written = sqrt(2 / (5 * c)), 2 / (config.num_layers * sqrt(c))
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name == "initial_conv.weight":
                parameter.normal_(0, 0.5, generator=generator)
                parameter[0].add_(1.0)
            elif parameter.dim() > 1:
                last = name.endswith((".out.weight", ".down.weight"))
                parameter.normal_(0, written if last else small, generator=generator)
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return decoder
