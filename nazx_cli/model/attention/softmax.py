"""Scores to weights to outputs: what every layer that holds keys and values computes.

o = sum_j softmax_j( cap tanh(scale q . k_j / cap) ) v_j        no cap: scale q . k_j
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.kernels.base import Attended

_STEP = 64  # of lengths in attention in 16 bits
_ROWS = 256  # queries whose scores are held at a time


@dataclass(frozen=True)
class Softmax:
    """Attention with the scale, and the cap on scores, of one model."""

    scale: float
    cap: float | None = None

    @classmethod
    def of(cls, config: ModelConfig) -> Softmax:
        """That of a configuration."""
        return cls(config.attention_scale, config.attention_cap)

    def over(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """(T, heads * D) from q (T, heads, D) and k, v (kv_heads, n, D); mask (T, n) bool.

        ``causal`` means that the T queries stand at the first T of the n keys.
        """
        if self.cap is not None:
            if causal:
                mask = torch.ones(len(q), k.shape[1], dtype=torch.bool, device=q.device).tril()
            return self.two_part(q, q, k, v, mask, 0)
        count, heads, kv_heads = len(q), q.shape[1], k.shape[0]
        if count > 1 and q.device.type == "cpu" and q.dtype != torch.float32:
            q, k, v, mask = _in_steps(q, k, v, mask)
        if q.is_cuda and (mask is not None or q.dtype == torch.float32):
            # Its kernels that hold no scores take groups of heads in 16 bits without a mask alone.
            k, v = (x.repeat_interleave(heads // kv_heads, 0) for x in (k, v))
        out = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            k[None],
            v[None],
            attn_mask=mask,
            is_causal=causal,
            scale=self.scale,
            enable_gqa=len(k) != heads,
        )
        return out[0, :, :count].transpose(0, 1).flatten(1)

    def over_batch(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """(B, heads * D): one query each, q (B, heads, D), over its own k and v
        (B, kv_heads, n, D), as far as mask (B, n) bool lets it see."""
        if self.cap is not None:
            rows = zip(q, k, v, mask, strict=True)
            return torch.cat([self.over(a[None], b, c, m[None], False) for a, b, c, m in rows])
        out = F.scaled_dot_product_attention(
            q[:, :, None],
            k,
            v,
            attn_mask=mask[:, None, None],
            scale=self.scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return out.flatten(1)

    def two_part(
        self, q: Tensor, q_first: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, first: int
    ) -> Tensor:
        """The same where the ``first`` keys are met by ``q_first`` (T, heads, D) in q's place."""
        count, heads, dim = q.shape
        scores = self._scores(q, q_first, k, mask, first)
        weights = scores.softmax(-1).to(v.dtype).view(len(k), -1, scores.shape[-1])
        out = torch.bmm(weights, v).view(heads, count, dim)
        return out.transpose(0, 1).flatten(1)

    def part(
        self, q: Tensor, q_first: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, first: int
    ) -> Attended:
        """Values (T, heads, D) and lse (T, heads), float32, of attention to these keys as a part of
        all; a query that sees none of them has the lse -inf, and values of 0."""
        parts = []
        for at in range(0, len(q), _ROWS):
            rows = slice(at, at + _ROWS)
            seen = None if mask is None else mask[rows]
            scores = self._scores(q[rows], q_first[rows], k, seen, first)  # (heads, R, n)
            top = scores.amax(-1, keepdim=True).clamp_(min=torch.finfo(torch.float32).min)
            weights = scores.sub_(top).exp_()
            mass = weights.sum(-1, keepdim=True)
            shares = weights.div_(mass.clamp(min=1.0)).to(v.dtype)  # the largest weight is 1
            out = torch.bmm(shares.view(len(k), -1, shares.shape[-1]), v).float()
            values = out.view(q.shape[1], -1, v.shape[-1]).transpose(0, 1)
            parts.append((values, (top + mass.log()).squeeze(-1).t()))
        return Attended(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def _scores(
        self, q: Tensor, q_first: Tensor, k: Tensor, mask: Tensor | None, first: int
    ) -> Tensor:
        """(heads, T, n) float32, -inf where the mask forbids."""
        count, heads, dim = q.shape
        kv_heads = k.shape[0]

        def grouped(x: Tensor) -> Tensor:  # (kv_heads, group * T, D)
            return x.transpose(0, 1).reshape(kv_heads, -1, dim)

        scores = torch.bmm(grouped(q), k[:, first:].transpose(1, 2))
        if first:
            far = torch.bmm(grouped(q_first), k[:, :first].transpose(1, 2))
            scores = torch.cat((far, scores), -1)
        scores = scores.float().mul_(self.scale)
        if self.cap is not None:
            scores = scores.div_(self.cap).tanh_().mul_(self.cap)
        scores = scores.view(heads, count, -1)
        if mask is not None:
            scores = scores.masked_fill_(~mask, -torch.inf)
        return scores


def _in_steps(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The same with zeros at the end of queries and keys, to multiples of ``_STEP``.

    PyTorch's attention in 16 bits compiles code for each pair of lengths and keeps it for good,
    up to a megabyte for each. No query comes to see a key that is added: those stand behind it.
    """
    rows, columns = -len(q) % _STEP, -k.shape[1] % _STEP
    q, k, v = F.pad(q, (0, 0, 0, 0, 0, rows)), *(F.pad(x, (0, 0, 0, columns)) for x in (k, v))
    return q, k, v, None if mask is None else F.pad(mask, (0, columns, 0, rows))
