"""InAttention (design section 2): tokens attend to the initial states of those before them.

    a    = LN1_l(h_i)
    q    = Wq_l a + bq_l
    k_j  = Wk_l LN1_l(h0_j) + bk_l        j <= i
    v_j  = Wv_l LN1_l(h0_j) + bv_l
    o    = sum_j softmax_j( rope(q, i) . rope(k_j, j) / sqrt(d_head) ) v_j

The initial state h0 of a position is the embedding of its token or, with an ``initial_window`` of
w, a causal convolution over those of its last w tokens, each feature by itself; h_i begins with it.
No position's output feeds another's, so the next token needs the last position only.

With xhat the standardized embedding of a token (the same in all layers), layer l's norm weights
gamma, beta and projections give

    k = Wk (gamma * xhat + beta) + bk        v = Wv (gamma * xhat + beta) + bv

``absorb_keys`` moves Wk and gamma to the query's side and ``project_values`` does Wv once for a
weighted sum of states, so that one matrix of states serves every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.context.cells import grams, standing_for
from nazx_cli.context.context import Context, Memory
from nazx_cli.context.layout import Layout
from nazx_cli.context.layouts import LAYOUTS
from nazx_cli.context.ranks.ranked import Following, Leading, Round
from nazx_cli.kernels.native.rowwise import from_left, from_right
from nazx_cli.kernels.rotary import Rotary, Rotation
from nazx_cli.model.attention.base import AttentionKind, Followed
from nazx_cli.model.decoder import Block, Decoder
from nazx_cli.model.layers import grams_of
from nazx_cli.ranks import Group


class InAttention(AttentionKind):
    """Attention to initial states, by any of the memory layouts."""

    name = "inattention"
    layouts = ("pairs", *(name for name in LAYOUTS if name != "pairs"))

    @property
    def reads_resident(self) -> bool:
        return True

    @classmethod
    def layouts_for(cls, config: ModelConfig) -> tuple[str, ...]:
        if config.attention.initial_window == 1:
            return cls.layouts
        return ("grams", *(name for name in cls.layouts if name != "grams"))

    def new_memory(self, layout: str) -> Memory:
        held = self._held(layout)
        return held if self.group is None else Leading(held, self.group)

    def _held(self, layout: str) -> Layout:
        return LAYOUTS[layout](InitialStateProjections(self.decoder), self.kernel)

    def sequence(self, ids: Tensor) -> Tensor:
        decoder = self.decoder
        count, config = len(ids), decoder.config
        projections = InitialStateProjections(decoder)
        turn = Rotation(decoder.rotary.phases(0, count, count, decoder.device), decoder.dtype)
        h = decoder.initial(grams_of(ids, config.attention.initial_window))
        states = projections.standardized(h)

        def attend(layer: int, a: Tensor) -> Tensor:
            q = _query(decoder.layers[layer], a, config.num_heads)
            k, v = projections.keys_values(layer, states)
            q, k = turn(q), turn(k)
            out = F.scaled_dot_product_attention(
                q.transpose(0, 1)[None],
                k.transpose(0, 1)[None],
                v.transpose(0, 1)[None],
                is_causal=True,
                enable_gqa=config.num_kv_heads != config.num_heads,
            )
            return out[0].transpose(0, 1).flatten(1)

        return decoder.hidden(h, attend)

    def run(self, context: Context, drafts: Sequence[int]) -> Tensor:
        layout = cast(Layout, context.memory)
        config, n = self.decoder.config, len(context)
        last = context.tokens.slice(max(0, n - config.attention.initial_window), n)
        with nullcontext() if self.group is None else self.group.together():
            layout.sync(standing_for(context.tokens, config))
            h = self._last_position(layout, last)
        return self.decoder.logits(h)

    def follow(self, numbers: Sequence[int], contexts: dict[int, Followed], group: Group) -> None:
        round_, edits, ids = Round.heard(group, numbers)
        if round_.context not in contexts:
            contexts[round_.context] = Following(self._held(round_.layout), group)
        layout = cast(Following, contexts[round_.context])
        with torch.inference_mode():
            layout.follow(round_, edits, ids)
            self._last_position(layout, torch.tensor(round_.last))

    def _last_position(self, layout: Layout, last: Tensor) -> Tensor:
        """(1, C) final state of the last position; ``last`` (w,) are the tokens that its initial
        state sees, fewer at the beginning."""
        decoder, n = self.decoder, layout.total
        config = decoder.config
        phases = decoder.rotary.phases(n - 1, n, n, decoder.device)[0]  # once for all layers
        seen = grams_of(last.to(decoder.device), config.attention.initial_window)
        h = decoder.initial(seen[-1:])

        def attend(layer: int, a: Tensor) -> Tensor:
            query = _query(decoder.layers[layer], a, config.num_heads)[0]
            return layout.attend(layer, query, phases).values.to(a.dtype).reshape(1, -1)

        return decoder.hidden(h, attend)


@dataclass(frozen=True)
class InitialStateProjections:
    """Keys and values from initial states; satisfies ``context.layout.Projections``."""

    decoder: Decoder

    @property
    def config(self) -> ModelConfig:
        return self.decoder.config

    @property
    def rotary(self) -> Rotary:
        return self.decoder.rotary

    @property
    def device(self) -> torch.device:
        return self.decoder.device

    @property
    def dtype(self) -> torch.dtype:
        return self.decoder.dtype

    def states(self, ids: Tensor) -> Tensor:
        """(n, C) standardized initial states of token ids (n,), or of cells where they see more
        than their own token."""
        seen = grams(ids.to(self.device), self.config)
        return self.standardized(self.decoder.initial(seen))

    def parts(self, ids: Tensor) -> Tensor:
        """(n, w, C) what tokens (n,) give to the initial states of positions at each distance: a
        state is standardized by dividing their sum by its root mean square, eps included."""
        rows: Tensor = self.decoder.embed(ids.to(self.device)).unsqueeze(1)
        if self.decoder.initial_conv is not None:
            rows = rows * self.decoder.initial_conv.weight
        if self.decoder.layers[0].initial_norm.bias is not None:
            rows = rows - rows.float().mean(-1, keepdim=True).to(rows.dtype)
        return rows

    def standardized(self, initial: Tensor) -> Tensor:
        """(n, C) of initial states (n, C): the part of norm1 that all layers share."""
        return self.decoder.layers[0].initial_norm.standardize(initial)

    def keys_values(self, layer: int, states: Tensor) -> tuple[Tensor, Tensor]:
        """Un-rotated keys and values, each (n, kv_heads, D), of ``states`` (n, C)."""
        block = self.decoder.layers[layer]
        kv = block.key_value(block.initial_norm.affine(states))
        k, v = kv.view(len(states), 2, self.config.num_kv_heads, -1).unbind(1)
        return k, v

    def absorb_keys(self, layer: int, probes: Tensor) -> tuple[Tensor, Tensor]:
        """For probes r (kv_heads, M, D): vectors (kv_heads, M, C) and constants (kv_heads, M),
        float32, such that r . k = vector . xhat + constant."""
        block = self.decoder.layers[layer]
        raw = from_left(probes, self._key_weight(layer))  # (kv_heads, M, C)
        constants = torch.zeros(probes.shape[:2], device=probes.device)
        if block.initial_norm.bias is not None:
            constants = raw @ block.initial_norm.bias.float()
        if (bias := self._key_bias(layer)) is not None:
            constants = constants + torch.bmm(probes.float(), bias.unsqueeze(-1)).squeeze(-1)
        return raw * block.initial_norm.weight.float(), constants

    def rotary_keys(self, layer: int) -> tuple[Tensor, Tensor]:
        """What ``absorb_keys`` gives for probes of a key's first 2F components, without making
        any product with them: (kv_heads, 2F, C) and (kv_heads, 2F), float32."""
        block, turned = self.decoder.layers[layer], 2 * self.rotary.half
        raw = self._key_weight(layer)[:, :turned].float()
        constants = raw.new_zeros(raw.shape[:2])
        if block.initial_norm.bias is not None:
            constants = raw @ block.initial_norm.bias.float()
        if (bias := self._key_bias(layer)) is not None:
            constants = constants + bias[:, :turned]
        return raw * block.initial_norm.weight.float(), constants

    def project_values(self, layer: int, mixed: Tensor) -> Tensor:
        """(heads, D) float32 values of weighted sums of states ``mixed`` (heads, C) whose
        weights add up to 1 in each head."""
        block = self.decoder.layers[layer]
        bias = block.key_value_bias
        heads, dim = self.config.num_kv_heads, self.config.head_dim
        wv = block.value_weight.view(heads, dim, -1)
        grouped = block.initial_norm.affine(mixed.to(wv.dtype)).view(heads, -1, mixed.shape[-1])
        out = from_right(grouped, wv)  # (kv_heads, group, D)
        if bias is not None:
            out = out + bias[heads * dim :].view(heads, 1, dim)
        return out.reshape(-1, dim).float()

    def _key_weight(self, layer: int) -> Tensor:
        """(kv_heads, D, C): Wk."""
        heads, dim = self.config.num_kv_heads, self.config.head_dim
        return self.decoder.layers[layer].key_weight.view(heads, dim, -1)

    def _key_bias(self, layer: int) -> Tensor | None:
        """(kv_heads, D) float32: bk, or None."""
        bias = self.decoder.layers[layer].key_value_bias
        heads, dim = self.config.num_kv_heads, self.config.head_dim
        return None if bias is None else bias[: heads * dim].view(heads, dim).float()


def _query(block: Block, a: Tensor, heads: int) -> Tensor:
    """(T, heads, D) un-rotated queries of a (T, C)."""
    return block.query(a).view(len(a), heads, -1)
