"""One decoder for both block families; how positions attend is handed in.

A block (GPT-NeoX sequential or parallel residuals, Llama) computes

    a = norm1(h);  o = attend(layer, a);  h = h + Wo o;  h = h + mlp(norm2(h))

with ``mlp(norm2(h))`` of the block's input where residuals are parallel. ``attend`` is what
distinguishes InAttention, windowed and full attention, over a whole sequence or over a context.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nazx_cli.config import ModelConfig
from nazx_cli.kernels.rotary import Rotary
from nazx_cli.model.layers import FeedForward, Linear, Norm, dense_weight, multiply_rows

Attend = Callable[[int, Tensor], Tensor]
"""(layer, a (T, C)) -> o (T, heads * head_dim)"""


class Block(nn.Module):
    """One layer's weights. ``qkv`` stacks the rows of Wq, Wk and Wv."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c, d, bias = config.hidden_size, config.head_dim, config.attention_bias
        self.parallel = config.parallel_residual
        self.q_rows = config.num_heads * d
        self.kv_rows = config.num_kv_heads * d
        self.norm1 = Norm(config)
        self.qkv = Linear(c, self.q_rows + 2 * self.kv_rows, bias=bias)
        self.out = Linear(self.q_rows, c, bias=bias)
        self.norm2 = Norm(config)
        self.mlp = FeedForward(config)

    def query(self, a: Tensor) -> Tensor:
        """(T, heads * D) queries of a (T, C)."""
        return multiply_rows(self.qkv, a, 0, self.q_rows)

    def key_value(self, a: Tensor) -> Tensor:
        """(T, 2 * kv_heads * D) keys, then values, of a (T, C)."""
        return multiply_rows(self.qkv, a, self.q_rows, self.q_rows + 2 * self.kv_rows)

    @property
    def key_weight(self) -> Tensor:
        """(kv_heads * D, C): Wk."""
        return dense_weight(self.qkv, self.q_rows, self.q_rows + self.kv_rows)

    @property
    def value_weight(self) -> Tensor:
        """(kv_heads * D, C): Wv."""
        return dense_weight(self.qkv, self.q_rows + self.kv_rows)

    @property
    def key_value_bias(self) -> Tensor | None:
        """(2 * kv_heads * D,) or None."""
        bias: Tensor | None = self.qkv.bias
        return None if bias is None else bias[self.q_rows :]

    def residual(self, h: Tensor, attended: Tensor) -> Tensor:
        """The block's output from its input h (T, C) and o (T, heads * head_dim)."""
        o: Tensor = self.out(attended)
        mlp: Tensor
        if self.parallel:
            mlp = self.mlp(self.norm2(h))
            return mlp + o + h
        h = h + o
        mlp = self.mlp(self.norm2(h))
        return h + mlp


class Decoder(nn.Module):
    """The stack of blocks between the token embedding and the output head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.quantization: str | None = None  # int8 or nf4 where the blocks hold such weights
        self.rotary = Rotary(config.rope)
        # Without random numbers, for which torch would first import its compiler.
        size = config.vocab_size, config.hidden_size
        self.embed = nn.Embedding(*size, _weight=torch.empty(size))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_norm = Norm(config)
        self.head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embed.weight
        self.layers: tuple[Block, ...] = tuple(self.blocks)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type that the arithmetic is done in."""
        return self.embed.weight.dtype

    def hidden(self, h: Tensor, attend: Attend) -> Tensor:
        """Run states h (T, C) through every block; (T, C), before the final norm.

        Where ``attend`` returns fewer rows than it was given, only those last positions go on.
        """
        for layer, block in enumerate(self.layers):
            attended = attend(layer, block.norm1(h))
            h = block.residual(h[len(h) - len(attended) :], attended)
        return h

    def logits(self, h: Tensor) -> Tensor:
        """Output logits (T, V) float32 of final states (T, C)."""
        out: Tensor = self.head(self.final_norm(h))
        return out.float()
