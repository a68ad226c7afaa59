"""Running a pack through the decoder for training: logits of the tokens to be learnt, and no
others, with the prefix computed once for all branches.

The result is that of every branch run alone by the model's own attention kind, as far as the
pack stays within what the kind attends to plainly (``reach``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.errors import UsageError
from nazx_cli.kernels.rotary import Rotation
from nazx_cli.model.decoder import Decoder
from nazx_cli.model.layers import Norm
from nazx_cli.training.packing import Layout

_FAR = -1e4  # added to a logit that must not count; small enough for float16


def reach(config: ModelConfig) -> int:
    """Tokens that a prompt with its answer may have in training.

    ``UsageError`` for InAttention, whose keys come from elsewhere than the running states.
    """
    kind = config.attention
    if kind.kind == "inattention":
        raise UsageError(
            "a model with pure InAttention cannot be tuned yet",
            "tune a windowed or a full model, such as nazx-smol-135m",
        )
    if kind.kind == "windowed":
        return kind.local_window + kind.sink_tokens
    return config.max_positions


def answer_logits(decoder: Decoder, layout: Layout) -> Tensor:
    """(A, V) logits, in the decoder's type, of the tokens that ``layout.targets`` names."""
    config = decoder.config
    count, heads = len(layout.ids), config.num_heads
    length = int(layout.positions.max()) + 1
    turn = Rotation(decoder.rotary.at(layout.positions, length), decoder.dtype)
    masks = _masks(layout, decoder.dtype)
    last = config.num_layers - 1
    split = heads + config.num_kv_heads
    h: Tensor = F.embedding(layout.ids, decoder.embed.weight)
    for number, block in enumerate(decoder.layers):
        rows = block.qkv(normalize(block.norm1, h)).view(count, -1, config.head_dim)
        turned = turn(rows[:, :split])
        q, k, v = turned[:, :heads], turned[:, heads:], rows[:, split:]
        if number == last:  # from here on nothing but the answers is asked for
            attended = _attend(q[layout.at], k, v, masks[1][layout.at - layout.prefix])
            h = h[layout.at]
        else:
            attended = _attend_all(q, k, v, layout.prefix, masks)
        out = block.out(attended)
        if block.parallel:
            h = block.mlp(normalize(block.norm2, h)) + out + h
        else:
            h = h + out
            h = h + block.mlp(normalize(block.norm2, h))
    logits: Tensor = decoder.head(normalize(decoder.final_norm, h))
    return logits


def _masks(layout: Layout, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What is added to the logits of prefix (P, P) and of branches (N - P, N)."""
    p, n = layout.prefix, len(layout.ids)
    at = torch.arange(n, device=layout.ids.device)
    own = layout.branch[None] == layout.branch[p:, None]
    seen = (at[None] <= at[p:, None]) & (own | (layout.branch[None] < 0))
    zeros = torch.zeros(n, n, dtype=dtype, device=layout.ids.device)
    prefix = zeros[:p, :p].masked_fill(at[None, :p] > at[:p, None], _FAR)
    return prefix, zeros[p:].masked_fill(~seen, _FAR)


def _attend_all(
    q: Tensor, k: Tensor, v: Tensor, prefix: int, masks: tuple[Tensor, Tensor]
) -> Tensor:
    """(N, heads * D): the prefix sees itself, branches see the prefix and themselves."""
    branches = _attend(q[prefix:], k, v, masks[1])
    if not prefix:
        return branches
    return torch.cat((_attend(q[:prefix], k[:prefix], v[:prefix], masks[0]), branches))


def _attend(q: Tensor, k: Tensor, v: Tensor, added: Tensor) -> Tensor:
    """(T, heads * D) from q (T, heads, D), k, v (n, kv_heads, D) and what is added, (T, n).

    Three plain products: on a CPU in bfloat16 torch's fused attention takes longer backward.
    """
    (count, heads, dim), kv_heads = q.shape, k.shape[1]
    grouped = q.transpose(0, 1).reshape(kv_heads, -1, dim) * dim**-0.5
    scores = torch.bmm(grouped, k.permute(1, 2, 0)).view(heads, count, -1) + added
    weights = scores.softmax(-1).view(kv_heads, -1, len(k))
    out = torch.bmm(weights, v.transpose(0, 1))
    return out.view(heads, count, dim).transpose(0, 1).reshape(count, heads * dim)


class _RmsNorm(torch.autograd.Function):
    """RMSNorm that keeps one copy of its result where autograd's own keeps several in float32."""

    @staticmethod
    def forward(ctx, x, weight, eps):  # type: ignore[no-untyped-def]
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        unit = (wide * scale).to(x.dtype)
        ctx.save_for_backward(unit, scale, weight)
        return unit * weight

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        unit, scale, weight = ctx.saved_tensors
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (grad.float() * unit).sum(0).to(weight.dtype)
        grad = grad * weight
        along = (grad * unit).float().mean(-1, keepdim=True).to(grad.dtype)
        return (grad - unit * along) * scale.to(grad.dtype), of_weight, None


_rms_norm: Callable[[Tensor, Tensor, float], Tensor] = _RmsNorm.apply


def normalize(norm: Norm, x: Tensor) -> Tensor:
    """``norm(x)``, cheap to differentiate."""
    if norm.bias is not None:
        out: Tensor = norm(x)
        return out
    return _rms_norm(x, norm.weight, norm.eps)
