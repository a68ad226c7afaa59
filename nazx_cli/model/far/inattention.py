"""A far memory by InAttention: one head at the output, over initial states, that copies.

Far position p holds the token x_p; what a key knows are the embeddings of the w tokens up to it,
each at its distance, and the sum of those around it, R to each side; its value is the token after
it. Nothing runs through the layers for it, so what is held of a far text are its token ids. For a
position i whose final state is h_i, e^ the standardized embedding and h^ the standardized state,

    q_id = Q_d e^(x_{i-d}) + S_d h^_i                       d = 0 .. w-1, rank r
    k_d(x) = K_d e^(x) / |K_d e^(x)|
    q_i = Q sum of e^(x_{i-63}) .. e^(x_i) / (8 sqrt(C)) + S h^_i    what is spoken of; R > 0
    k(p) = sum of K e^(x_{p-R}) .. K e^(x_{p+R}) / sqrt(2 R + 1)
    s_ip = sum_d q_id . k_d(x_{p-d}) + q_i . k(p)
    s_i0 = n . h^_i + b + c log N                           against copying
    P(next = t) = a_i0 P_model(t) + sum of a_ip over p with x_{p+1} = t,    a_i = softmax(s_i)

A score is a sum over the tokens that a key knows, each from a table of the vocabulary: for one
position the tables are products with K_d e^ and K e^, and every far position costs w additions and
a running sum. Nothing is rotated: how far away something stands does not matter.

This project's own: the far memory of design section 3 begun where there is something to find. A
head that copies by what came before is that of pointer and cache models (arXiv 1609.07843,
1612.04426); the keys of theirs are hidden states, which need the text to run through the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nazx_cli.config import ModelConfig
from nazx_cli.kernels.native.rowwise import from_right
from nazx_cli.model.far.base import FarMemory
from nazx_cli.model.layers import Embedding

BLOCK = 1 << 18
"""Far positions that are scored at a time."""
_ROWS = 4096  # of the vocabulary, whose keys are made at a time
_TOGETHER = 16  # positions whose scores of the vocabulary are held at a time
_LEAST = -80.0  # a logarithm of next to nothing
_SPOKEN = 64  # last tokens that tell what is spoken of


class FarInAttention(FarMemory):
    """The head; ``config.attention`` has its rank r (``far_rank``), w (``far_window``) and R
    (``far_around``).

    keys, queries, state   (w, r, C): K_d, Q_d and S_d; with R > 0 (w + 1, r, C), K, Q and S last
    null, bias             (C,) and (2,): n, and b with c
    """

    name = "inattention"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        attention = config.attention
        self.taps, self.around = attention.far_window, attention.far_around
        shape = self.taps + (self.around > 0), attention.far_rank, config.hidden_size
        self.keys = nn.Parameter(torch.empty(shape))
        self.queries = nn.Parameter(torch.empty(shape))
        self.state = nn.Parameter(torch.empty(shape))
        self.null = nn.Parameter(torch.empty(config.hidden_size))
        self.bias = nn.Parameter(torch.empty(2))
        self._embedded: Callable[[Tensor], Tensor] | None = None
        self.tables = torch.empty(0)
        """(w, V, r) or (w + 1, V, r): ``key_parts`` of the whole vocabulary."""

    def prepare(self, embed: Embedding) -> None:
        size = self.config.vocab_size
        ids = torch.arange(size, device=embed.weight.device)
        parts = torch.split(ids, _ROWS)
        rows = [self.key_parts(standardized(embed(part))) for part in parts]
        self.tables = torch.cat(rows, 1).to(embed.weight.dtype)
        # A function: as a module the embedding would count as a part of this one.
        self._embedded = lambda ids: standardized(embed(ids))

    @property
    def window(self) -> int:
        return max(self.taps, _SPOKEN) if self.around else self.taps

    @property
    def nbytes(self) -> int:
        return self.tables.numel() * self.tables.element_size()

    def key_parts(self, tokens: Tensor) -> Tensor:
        """(w, n, r) float32: what tokens of standardized embeddings (n, C) give to keys, at each
        distance from their position; with R > 0 (w + 1, n, r), last what they give to all around
        them."""
        parts = tokens @ self.keys.float().transpose(1, 2)
        exact = F.normalize(parts[: self.taps], dim=-1)
        return torch.cat((exact, parts[self.taps :] / math.sqrt(2 * self.around + 1)))

    def query_parts(self, recent: Tensor, states: Tensor) -> Tensor:
        """(n, w, r) or (n, w + 1, r) float32, of the standardized embeddings (n, ``window``, C) of
        each position's last tokens, all zero where there is none, and of its standardized state
        (n, C)."""
        rows = recent[:, : self.taps]
        if self.around:
            size = math.sqrt(_SPOKEN * recent.shape[-1])
            spoken = recent[:, :_SPOKEN].sum(1, keepdim=True) / size
            rows = torch.cat((rows, spoken), 1)
        by_gram = torch.einsum("nwc,wrc->nwr", rows, self.queries.float())
        return by_gram + torch.einsum("nc,wrc->nwr", states, self.state.float())

    def refusal(self, states: Tensor, count: int) -> Tensor:
        """(n,) float32: the score against copying, of standardized states (n, C) beside ``count``
        far positions."""
        bias = self.bias.float()
        return states @ self.null.float() + bias[0] + bias[1] * math.log(max(1, count))

    def mix(self, logits: Tensor, states: Tensor, recent: Tensor, far: Tensor) -> Tensor:
        own = logits.log_softmax(-1)
        if len(far) < 2:  # nothing follows anything
            return own
        far, mixed = far.to(own.device), []
        each = (own, *self.asked(states, recent, len(far)))
        for some, queries, refusals in zip(
            *(torch.split(part, _TOGETHER) for part in each), strict=True
        ):
            scores = from_right(queries.transpose(0, 1), self.tables).transpose(0, 1)  # (n, w, V)
            for row in zip(some, scores, refusals, strict=True):
                mixed.append(self._mixed(*row, far))
        return torch.stack(mixed)

    def asked(self, states: Tensor, recent: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Query parts (n, w, r) and refusals (n,), as ``mix`` is given states and recent tokens, of
        ``count`` far ones."""
        assert self._embedded is not None, "prepared when it was taken in"
        states = standardized(states)
        rows = self._embedded(recent.clamp(min=0)) * (recent >= 0).unsqueeze(-1)
        return self.query_parts(rows, states), self.refusal(states, count)

    def _mixed(self, own: Tensor, scores: Tensor, refusal: Tensor, far: Tensor) -> Tensor:
        """(V,) of one position: ``own`` (V,) log-probabilities, ``scores`` (w, V) of tokens at each
        distance, ``refusal`` (), and ``far`` (N,) ids."""
        most, total = refusal, torch.ones_like(refusal)
        copied = torch.zeros_like(own)
        for start in range(0, len(far) - 1, BLOCK):
            stop = min(start + BLOCK, len(far) - 1)
            found = scores[0].index_select(0, far[start:stop])
            for back in range(1, self.taps):
                known = far[max(0, start - back) : max(0, stop - back)]
                found[len(found) - len(known) :] += scores[back].index_select(0, known)
            if self.around:
                begin, end = max(0, start - self.around), min(len(far), stop + self.around)
                near = scores[-1].index_select(0, far[begin:end])
                found += summed(near, self.around)[start - begin :][: len(found)]
            higher = torch.maximum(most, found.max())
            shrunk = (most - higher).exp()
            # Below that numbers are denormal, and many times as slow.
            weights = found.sub_(higher).clamp_(min=_LEAST).exp_()
            copied = (copied * shrunk).index_add_(0, far[start + 1 : stop + 1], weights)
            total = total * shrunk + weights.sum()
            most = higher
        kept = own + (refusal - most)
        return torch.logaddexp(kept, copied.log()) - total.log()


def summed(x: Tensor, around: int) -> Tensor:
    """Of each row of x (n, ...) the sum of the rows up to ``around`` before and after it."""
    width = 2 * around + 1
    padded = F.pad(x, (0, 0) * (x.dim() - 1) + (around + 1, around))
    exact = torch.float32 if x.device.type == "mps" else torch.float64  # all that MPS knows
    sums = padded.cumsum(0, dtype=exact)
    return (sums[width:] - sums[:-width]).to(x.dtype)


def standardized(x: Tensor) -> Tensor:
    """x (..., C) over its root mean square, in float32."""
    return F.rms_norm(x.float(), (x.shape[-1],))
