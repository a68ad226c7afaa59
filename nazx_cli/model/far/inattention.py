"""A far memory by InAttention: one head at the output, over initial states, that copies.

Far position p holds the token x_p; what a key knows of it are the embeddings of the w tokens up to
it, and its value is the token after it. Nothing runs through the layers for it, so what is held of
a far text are its token ids. For a position i whose final state is h_i, e^ the standardized
embedding and h^ the standardized state,

    q_id = Q_d e^(x_{i-d}) + S_d h^_i                       d = 0 .. w-1, rank r
    k_d(x) = K_d e^(x) / |K_d e^(x)|
    s_ip = sum_d q_id . k_d(x_{p-d})
    s_i0 = n . h^_i + b                                     against copying
    P(next = t) = a_i0 P_model(t) + sum of a_ip over p with x_{p+1} = t,    a_i = softmax(s_i)

A score is a sum over the tokens that a key knows, each from a table of the vocabulary: for one
position the tables are w products with K_d e^, and every far position costs w additions. Nothing
is rotated: how far away something stands does not matter.

This project's own: the far memory of design section 3 begun where there is something to find. A
head that copies by what came before is that of pointer and cache models (arXiv 1609.07843,
1612.04426); the keys of theirs are hidden states, which need the text to run through the model.
"""

from __future__ import annotations

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


class FarInAttention(FarMemory):
    """The head; ``config.attention`` has its rank r (``far_rank``) and w (``far_window``).

    keys, queries, state   (w, r, C): K_d, Q_d and S_d
    null, bias             (C,) and (1,): n and b
    """

    name = "inattention"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        shape = config.attention.far_window, config.attention.far_rank, config.hidden_size
        self.keys = nn.Parameter(torch.empty(shape))
        self.queries = nn.Parameter(torch.empty(shape))
        self.state = nn.Parameter(torch.empty(shape))
        self.null = nn.Parameter(torch.empty(config.hidden_size))
        self.bias = nn.Parameter(torch.empty(1))
        self._embedded: Callable[[Tensor], Tensor] | None = None
        self._tables = torch.empty(0)

    def prepare(self, embed: Embedding) -> None:
        size = self.config.vocab_size
        ids = torch.arange(size, device=embed.weight.device)
        parts = torch.split(ids, _ROWS)
        rows = [self.key_parts(standardized(embed(part))) for part in parts]
        self._tables = torch.cat(rows, 1).to(embed.weight.dtype)
        # A function: as a module the embedding would count as a part of this one.
        self._embedded = lambda ids: standardized(embed(ids))

    @property
    def window(self) -> int:
        return self.config.attention.far_window

    @property
    def nbytes(self) -> int:
        return self._tables.numel() * self._tables.element_size()

    def key_parts(self, tokens: Tensor) -> Tensor:
        """(w, n, r) float32: what tokens of standardized embeddings (n, C) give to keys, at each
        distance from their position."""
        return F.normalize(tokens @ self.keys.float().transpose(1, 2), dim=-1)

    def query_parts(self, recent: Tensor, states: Tensor) -> Tensor:
        """(n, w, r) float32, of the standardized embeddings (n, w, C) of each position's last
        tokens, all zero where there is none, and of its standardized state (n, C)."""
        by_gram = torch.einsum("nwc,wrc->nwr", recent, self.queries.float())
        return by_gram + torch.einsum("nc,wrc->nwr", states, self.state.float())

    def refusal(self, states: Tensor) -> Tensor:
        """(n,) float32: the score against copying, of standardized states (n, C)."""
        return states @ self.null.float() + self.bias.float()

    def mix(self, logits: Tensor, states: Tensor, recent: Tensor, far: Tensor) -> Tensor:
        own = logits.log_softmax(-1)
        if len(far) < 2:  # nothing follows anything
            return own
        assert self._embedded is not None, "prepared when it was taken in"
        states = standardized(states)
        rows = self._embedded(recent.clamp(min=0)) * (recent >= 0).unsqueeze(-1)
        far, mixed = far.to(own.device), []
        each = (own, self.query_parts(rows, states), self.refusal(states))
        for some, queries, refusals in zip(
            *(torch.split(part, _TOGETHER) for part in each), strict=True
        ):
            scores = from_right(queries.transpose(0, 1), self._tables).transpose(0, 1)  # (n, w, V)
            for row in zip(some, scores, refusals, strict=True):
                mixed.append(self._mixed(*row, far))
        return torch.stack(mixed)

    def _mixed(self, own: Tensor, scores: Tensor, refusal: Tensor, far: Tensor) -> Tensor:
        """(V,) of one position: ``own`` (V,) log-probabilities, ``scores`` (w, V) of tokens at each
        distance, ``refusal`` (), and ``far`` (N,) ids."""
        most, total = refusal, torch.ones_like(refusal)
        copied = torch.zeros_like(own)
        for start in range(0, len(far) - 1, BLOCK):
            stop = min(start + BLOCK, len(far) - 1)
            found = scores[0].index_select(0, far[start:stop])
            for back in range(1, len(scores)):
                known = far[max(0, start - back) : max(0, stop - back)]
                found[len(found) - len(known) :] += scores[back].index_select(0, known)
            higher = torch.maximum(most, found.max())
            shrunk = (most - higher).exp()
            weights = found.sub_(higher).exp_()
            copied = (copied * shrunk).index_add_(0, far[start + 1 : stop + 1], weights)
            total = total * shrunk + weights.sum()
            most = higher
        kept = own + (refusal - most)
        return torch.logaddexp(kept, copied.log()) - total.log()


def standardized(x: Tensor) -> Tensor:
    """x (..., C) over its root mean square, in float32."""
    return F.rms_norm(x.float(), (x.shape[-1],))
