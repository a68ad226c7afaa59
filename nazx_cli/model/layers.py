"""Normalisation, activation and the two feed-forward forms."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nazx_cli.config import ModelConfig

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_fast": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class Norm(nn.Module):
    """LayerNorm (GPT-NeoX: weight and bias) or RMSNorm (Llama: weight only) over C features."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.shape = (config.hidden_size,)
        self.weight = nn.Parameter(torch.empty(self.shape))
        self.bias: nn.Parameter | None = None
        if config.family == "gpt_neox":
            self.bias = nn.Parameter(torch.empty(self.shape))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        if self.bias is None:
            return F.rms_norm(x, self.shape, self.weight, self.eps)
        return F.layer_norm(x, self.shape, self.weight, self.bias, self.eps)

    def standardize(self, x: Tensor) -> Tensor:
        """The part of ``forward`` that all layers share: no weight, no bias."""
        if self.bias is None:
            return F.rms_norm(x, self.shape, None, self.eps)
        return F.layer_norm(x, self.shape, None, None, self.eps)

    def affine(self, x: Tensor) -> Tensor:
        """The rest of it: ``forward(x) == affine(standardize(x))``."""
        return x * self.weight if self.bias is None else torch.addcmul(self.bias, x, self.weight)


class FeedForward(nn.Module):
    """GPT-NeoX's up-activate-down, or Llama's gated form with gate and up in one matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated = config.family == "llama"
        inner = config.intermediate_size * (2 if self.gated else 1)
        self.up = nn.Linear(config.hidden_size, inner, bias=config.mlp_bias)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.activation = _ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        inner: Tensor = self.up(x)
        if not self.gated:
            return self.down(self.activation(inner))  # type: ignore[no-any-return]
        gate, up = inner.chunk(2, -1)
        return self.down(self.activation(gate) * up)  # type: ignore[no-any-return]


def dense_weight(linear: nn.Linear) -> Tensor:
    """The (out, in) matrix that a linear layer multiplies by."""
    return linear.weight
