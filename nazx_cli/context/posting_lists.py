"""The inverted index of a token sequence: for each distinct token, where it stands.

This is the form in which a resident context is both attended to (InAttention: equal tokens have
equal keys and values, design section 2) and searched (recall).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PostingLists:
    """Posting lists of N tokens with U distinct ids, on the CPU.

    distinct   (U,)   int32, ascending token ids
    offsets    (U+1,) int64, list u is positions[offsets[u]:offsets[u + 1]]
    positions  (N,)   int32, ascending within a list
    """

    distinct: Tensor
    offsets: Tensor
    positions: Tensor

    @classmethod
    def build(cls, ids: Tensor) -> PostingLists:
        """Index ``ids``, a 1-D integer tensor; O(N log N), about 0.1 s for 1,000,000 tokens."""
        ordered, positions = torch.sort(ids.to(torch.int32), stable=True)
        distinct, counts = torch.unique_consecutive(ordered, return_counts=True)
        offsets = torch.zeros(len(distinct) + 1, dtype=torch.int64)
        torch.cumsum(counts, 0, out=offsets[1:])
        return cls(distinct, offsets, positions.to(torch.int32))

    @property
    def counts(self) -> Tensor:
        """(U,) int64: length of each list."""
        return self.offsets[1:] - self.offsets[:-1]

    def __len__(self) -> int:
        return len(self.positions)

    def of(self, token_id: int) -> Tensor:
        """Positions of ``token_id``, ascending; empty where it does not occur."""
        at = int(torch.searchsorted(self.distinct, token_id))
        if at == len(self.distinct) or int(self.distinct[at]) != token_id:
            return self.positions[:0]
        return self.positions[int(self.offsets[at]) : int(self.offsets[at + 1])]
