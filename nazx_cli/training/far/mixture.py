"""The loss of a far memory by InAttention, and its gradients, without a graph of the scores.

With q (n, D) and k (N, D) the joined parts of queries and keys, s0 (n,) the score against copying
and log p (n,) what the model itself gives the right token, the loss of a position is

    log( e^s0 + sum_p e^(q.k_p) )
        - log( e^s0 p + sum of e^(q.k_p) over the p whose next token is right )

``model.far.inattention`` computes the same mixture, over the whole vocabulary, when it serves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_NEVER = -1e30


class _Mixture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, refusal: Tensor, own: Tensor, right: Tensor, seen: Tensor
    ) -> Tensor:
        weights = q @ k.t()
        if int(seen.min()) < len(k):
            unseen = torch.arange(len(k), device=k.device) >= seen.unsqueeze(1)
            weights.masked_fill_(unseen, _NEVER)
        most = torch.maximum(weights.amax(1), refusal) if len(k) else refusal
        weights.sub_(most.unsqueeze(1)).exp_()
        refused = (refusal - most).exp()
        total = weights.sum(1) + refused
        rows, columns = right.nonzero(as_tuple=True)
        copied = weights[rows, columns]
        kept = refused * own.exp()
        likely = kept.index_add(0, rows, copied)
        # From here on they are the gradients of the scores.
        weights.div_(total.unsqueeze(1))
        weights[rows, columns] -= copied / likely[rows]
        ctx.save_for_backward(q, k, weights, refused / total - kept / likely)
        return total.log() - likely.log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, scores, refusal = ctx.saved_tensors
        rows = grad.unsqueeze(1)
        return (scores @ k) * rows, scores.t() @ (q * rows), refusal * grad, None, None, None


def mixture_loss(
    q: Tensor, k: Tensor, refusal: Tensor, own: Tensor, right: Tensor, seen: Tensor
) -> Tensor:
    """(n,) losses in nats. ``right`` (n, N) bool: where a far position's next token is the one to
    be foretold; ``seen`` (n,): how many far positions each may look at."""
    return _Mixture.apply(q, k, refusal, own, right, seen)  # type: ignore[no-any-return, no-untyped-call]
