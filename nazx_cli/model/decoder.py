"""One decoder for all families of blocks; how positions attend is handed in.

A block computes

    a = norm1(h);  o = attend(layer, a);  h = h + Wo o;  h = h + mlp(norm2(h))

with ``mlp(norm2(h))`` of the block's input where residuals are parallel (GPT-NeoX). A family may
do without norm1 and norm2, or normalize what attention and feed-forward give before it is added.
``attend`` is what distinguishes InAttention, windowed and full attention, over a whole sequence
or over a context.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from nazx_cli.config import ModelConfig
from nazx_cli.families.rope import RopeConfig
from nazx_cli.kernels.rotary import Rotary
from nazx_cli.model.far import FarMemory, far_memory_of
from nazx_cli.model.layers import (
    Embedding,
    FeedForward,
    InitialConvolution,
    Linear,
    Norm,
    dense_weight,
    multiply_rows,
)

Attend = Callable[[int, Tensor], Tensor]
"""(layer, a (T, C)) -> o (T, heads * head_dim)"""


class Block(nn.Module):
    """One layer's weights. ``qkv`` stacks the rows of Wq, Wk and Wv."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c, d, names = config.hidden_size, config.head_dim, config.names
        self.parallel = config.parallel_residual
        self.residual_scale = config.residual_scale
        self.heads, self.head_dim = config.num_heads, d
        self.q_rows = config.num_heads * d
        self.kv_rows = config.num_kv_heads * d
        self.norm1 = Norm(config) if names.attention_norm else None
        self.qkv = Linear(c, self.q_rows + 2 * self.kv_rows, bias=config.qkv_bias)
        self.qk_norm = config.qk_norm
        self.q_norm = self.k_norm = None
        if self.qk_norm is not None:
            by_head = self.qk_norm == "head"
            self.q_norm = Norm(config, d if by_head else self.q_rows)
            self.k_norm = Norm(config, d if by_head else self.kv_rows)
        self.out = Linear(self.q_rows, c, bias=config.out_bias)
        self.norm1_after = Norm(config) if names.attention_norm_after else None
        self.norm2 = Norm(config) if names.mlp_norm else None
        self.mlp = FeedForward(config)
        self.norm2_after = Norm(config) if names.mlp_norm_after else None

    @property
    def initial_norm(self) -> Norm:
        """norm1, for attention kinds that are defined on what it gives."""
        assert self.norm1 is not None, "the configuration was checked"
        return self.norm1

    def normalized(self, h: Tensor) -> Tensor:
        """(T, C): what attention is given of the block's input h (T, C)."""
        return h if self.norm1 is None else self.norm1(h)

    def projected(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Un-rotated queries with keys (T, heads + kv_heads, D), and values (T, kv_heads, D)."""
        rows = self.qkv(a).view(len(a), -1, self.head_dim)
        split = self.heads + self.kv_rows // self.head_dim
        qk, v = rows[:, :split], rows[:, split:]
        if self.q_norm is None or self.k_norm is None:
            return qk, v
        q, k = qk[:, : self.heads], qk[:, self.heads :]
        if self.qk_norm == "all":
            q, k = (
                norm(x.flatten(1)).view(x.shape) for norm, x in ((self.q_norm, q), (self.k_norm, k))
            )
        else:
            q, k = self.q_norm(q), self.k_norm(k)
        return torch.cat((q, k), 1), v

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
        o = self._added(self.out(attended), self.norm1_after)
        if self.parallel:
            return self._fed(h) + o + h
        h = h + o
        return h + self._fed(h)

    def _fed(self, h: Tensor) -> Tensor:
        return self._added(self.mlp(h if self.norm2 is None else self.norm2(h)), self.norm2_after)

    def _added(self, x: Tensor, norm: Norm | None) -> Tensor:
        """What is added to the residual stream for x (T, C)."""
        if norm is not None:
            x = norm(x)
        return x if self.residual_scale == 1.0 else x * self.residual_scale


class Decoder(nn.Module):
    """The stack of blocks between the token embedding and the output head."""

    far: FarMemory | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.quantization: str | None = None  # int8 or nf4 where the blocks hold such weights
        self.is_split = False  # among processes that each hold a part of its matrices
        self.rows_run = 0
        """States that ran through a block so far, each counted in every block."""
        self.rotary = Rotary(config.rope)
        self.rotaries: dict[RopeConfig, Rotary] = {config.rope: self.rotary}
        for kind in config.layer_kinds:
            if kind.rope is not None and kind.rope not in self.rotaries:
                self.rotaries[kind.rope] = Rotary(kind.rope)
        self.embed = Embedding(config)
        self.initial_conv: InitialConvolution | None = None
        if config.attention.initial_window > 1:
            self.initial_conv = InitialConvolution(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_norm = Norm(config)
        self.head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embed.weight
        self.register_module("far", far_memory_of(config))  # None too: it may come later
        self.layers: tuple[Block, ...] = tuple(self.blocks)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        """Where the arithmetic is done."""
        return self.final_norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type that the arithmetic is done in."""
        return self.embed.weight.dtype

    @property
    def heads(self) -> int:
        """Query heads of a layer that this process has."""
        return self.layers[0].heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values that it has."""
        return self.layers[0].kv_rows // self.config.head_dim

    def without_gradients(self) -> AbstractContextManager[None]:
        """For running it. Not in inference mode where it is split: torch then finds how each
        operation is split by tracing it, which takes seconds for every length of a prompt."""
        return torch.no_grad() if self.is_split else torch.inference_mode()

    def initial(self, grams: Tensor) -> Tensor:
        """(n, C) initial states h0 of positions whose last tokens are grams (n, w); see
        ``grams_of``."""
        if self.initial_conv is None:
            return self.embed(grams[:, 0])  # type: ignore[no-any-return]
        rows = self.embed(grams.clamp(min=0))
        rows = rows.masked_fill((grams < 0).to(rows.device).unsqueeze(-1), 0.0)
        return self.initial_conv(rows)  # type: ignore[no-any-return]

    def hidden(self, h: Tensor, attend: Attend) -> Tensor:
        """Run states h (T, C) through every block; (T, C), before the final norm.

        Where ``attend`` returns fewer rows than it was given, only those last positions go on.
        """
        for layer, block in enumerate(self.layers):
            attended = attend(layer, block.normalized(h))
            h = block.residual(h[len(h) - len(attended) :], attended)
            self.rows_run += len(h)
        return h

    def logits(self, h: Tensor) -> Tensor:
        """Output logits (T, V) float32 of final states (T, C)."""
        return self.scaled(self.head(self.final_norm(h)).float())

    def scaled(self, out: Tensor) -> Tensor:
        """Logits of what the head gives (..., V)."""
        if self.config.logit_scale != 1.0:
            out = out * self.config.logit_scale
        cap = self.config.logit_cap
        return out if cap is None else torch.tanh(out / cap) * cap
