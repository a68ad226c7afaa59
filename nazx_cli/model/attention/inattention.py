"""InAttention (design section 2): tokens attend to the initial states of those before them.

    a    = LN1_l(h_i)
    q    = Wq_l a + bq_l
    k_j  = Wk_l LN1_l(h0_j) + bk_l        j <= i
    v_j  = Wv_l LN1_l(h0_j) + bv_l
    o    = sum_j softmax_j( rope(q, i) . rope(k_j, j) / sqrt(d_head) ) v_j

No position's output feeds another's, so the next token needs the last position only.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor

from nazx_cli.context.context import Context, Memory
from nazx_cli.context.layout import Layout
from nazx_cli.context.layouts import LAYOUTS, new_layout
from nazx_cli.context.rotation import Turn
from nazx_cli.model.attention.base import AttentionKind
from nazx_cli.model.decoder import Block
from nazx_cli.model.projections import InitialStateProjections


class InAttention(AttentionKind):
    """Attention to initial states, by any of the memory layouts."""

    name = "inattention"
    layouts = ("pairs", *(name for name in LAYOUTS if name != "pairs"))
    reads_resident = True

    def new_memory(self, layout: str) -> Memory:
        return new_layout(layout, InitialStateProjections(self.decoder))

    def sequence(self, ids: Tensor) -> Tensor:
        decoder = self.decoder
        count, config = len(ids), decoder.config
        projections = InitialStateProjections(decoder)
        turn = Turn(decoder.rotary.phases(0, count, count, decoder.device), decoder.dtype)
        states = projections.states(ids)

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

        return decoder.hidden(decoder.embed(ids), attend)

    def next_state(self, context: Context) -> Tensor:
        decoder = self.decoder
        layout = cast(Layout, context.memory)
        layout.sync(context.tokens)
        n = len(context)
        phases = decoder.rotary.phases(n - 1, n, n, decoder.device)[0]  # once for all layers
        last = context.tokens.slice(n - 1, n)

        def attend(layer: int, a: Tensor) -> Tensor:
            query = _query(decoder.layers[layer], a, decoder.config.num_heads)[0]
            return layout.attend(layer, query, phases).to(a.dtype).reshape(1, -1)

        return decoder.hidden(decoder.embed(last.to(decoder.device)), attend)


def _query(block: Block, a: Tensor, heads: int) -> Tensor:
    """(T, heads, D) un-rotated queries of a (T, C)."""
    return block.query(a).view(len(a), heads, -1)
