"""Running a pack through the decoder for training: logits of the tokens to be learnt, and no
others, with the prefix computed once for all branches.

The result is that of every branch run alone by the model's own attention kind, as far as the
pack stays within what the kind attends to plainly (``reach``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.errors import UsageError
from nazx_cli.model.attention.sights import rotation
from nazx_cli.model.attention.softmax import Softmax
from nazx_cli.model.decoder import Decoder
from nazx_cli.training.packing import Layout

_FAR = -1e4  # added to a logit that must not count; small enough for float16


def reach(config: ModelConfig) -> int:
    """Tokens that a prompt with its answer may have in training.

    ``UsageError`` for InAttention, whose keys come from elsewhere than the running states.
    """
    if config.window is None:
        raise UsageError(
            "a model with pure InAttention cannot be tuned yet",
            "tune a windowed or a full model, such as nazx-smol-135m",
        )
    return config.window


def answer_logits(decoder: Decoder, layout: Layout) -> Tensor:
    """(A, V) logits, in the decoder's type, of the tokens that ``layout.targets`` names."""
    config = decoder.config
    heads, last = config.num_heads, config.num_layers - 1
    length = int(layout.positions.max()) + 1
    kinds = config.layer_kinds
    turns = {kind: rotation(decoder, kind.rope, layout.positions, length) for kind in set(kinds)}
    masks = {kind: _masks(layout, decoder.dtype, kind.window) for kind in set(kinds)}
    softmax = Softmax.of(config)
    h: Tensor = decoder.embed(layout.ids)
    for number, (block, kind) in enumerate(zip(decoder.layers, kinds, strict=True)):
        qk, v = block.projected(block.normalized(h))
        turned = turns[kind](qk)
        q, k = turned[:, :heads], turned[:, heads:]
        if number == last:  # from here on nothing but the answers is asked for
            added = masks[kind][1][layout.at - layout.prefix]
            attended = _attend(q[layout.at], k, v, added, softmax)
            h = h[layout.at]
        else:
            attended = _attend_all(q, k, v, layout.prefix, masks[kind], softmax)
        h = block.residual(h, attended)
    return decoder.logits(h)


def _masks(layout: Layout, dtype: torch.dtype, window: int | None) -> tuple[Tensor, Tensor]:
    """What is added to the logits of prefix (P, P) and of branches (N - P, N)."""
    p, n = layout.prefix, len(layout.ids)
    at = torch.arange(n, device=layout.ids.device)
    own = layout.branch[None] == layout.branch[p:, None]
    seen = (at[None] <= at[p:, None]) & (own | (layout.branch[None] < 0))
    hidden = at[None, :p] > at[:p, None]
    if window is not None:
        distance = layout.positions[:, None] - layout.positions[None]
        seen &= distance[p:] < window
        hidden |= distance[:p, :p] >= window
    zeros = torch.zeros(n, n, dtype=dtype, device=layout.ids.device)
    return zeros[:p, :p].masked_fill(hidden, _FAR), zeros[p:].masked_fill(~seen, _FAR)


def _attend_all(
    q: Tensor, k: Tensor, v: Tensor, prefix: int, masks: tuple[Tensor, Tensor], softmax: Softmax
) -> Tensor:
    """(N, heads * D): the prefix sees itself, branches see the prefix and themselves."""
    branches = _attend(q[prefix:], k, v, masks[1], softmax)
    if not prefix:
        return branches
    first = _attend(q[:prefix], k[:prefix], v[:prefix], masks[0], softmax)
    return torch.cat((first, branches))


def _attend(q: Tensor, k: Tensor, v: Tensor, added: Tensor, softmax: Softmax) -> Tensor:
    """(T, heads * D) from q (T, heads, D), k, v (n, kv_heads, D) and what is added, (T, n).

    Three plain products: on a CPU in bfloat16 torch's fused attention takes longer backward.
    """
    (count, heads, dim), kv_heads = q.shape, k.shape[1]
    grouped = q.transpose(0, 1).reshape(kv_heads, -1, dim) * softmax.scale
    scores = torch.bmm(grouped, k.permute(1, 2, 0)).view(heads, count, -1)
    if softmax.cap is not None:
        scores = torch.tanh(scores / softmax.cap) * softmax.cap
    weights = (scores + added).softmax(-1).view(kv_heads, -1, len(k))
    out = torch.bmm(weights, v.transpose(0, 1))
    return out.view(heads, count, dim).transpose(0, 1).reshape(count, heads * dim)
