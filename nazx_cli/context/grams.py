"""Layout ``grams``: nothing is held for cells but a number for each position.

An initial state is a sum before it is normalized, h0_n = sum_d c_d * E[t_(n - d)], and so is its
product with any vector. With e_(d, t) = c_d * E[t], less its mean where the norm takes means away,

    xhat_n = scale_n sum_d e_(d, t_(n - d)),    scale_n = 1 / sqrt(mean((sum_d e)^2) + eps)

so that a query meets each distinct *token* once for each distance d, and positions add up what
their tokens gave; weights times scale_n are likewise summed for each token and distance before they
meet the rows e. Each position costs w small sums, and how many cells are distinct does not matter.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nazx_cli.context.cells import grams
from nazx_cli.context.cost import GRAMS_BLOCK
from nazx_cli.context.layout import Layout, Projections
from nazx_cli.context.scan import AbsorbedQuery
from nazx_cli.kernels import KernelName
from nazx_cli.kernels.base import Attended, Tokens, joined
from nazx_cli.kernels.native.grams import GramKernel, GramPairs, Positions, gram_kernel_for
from nazx_cli.kernels.pytorch import OnlineSoftmax, plain_probes
from nazx_cli.kernels.rotary import PhaseTables
from nazx_cli.kernels.rows import GrowingRows, SlotTable


class GramsLayout(Layout):
    """Rows (U, w, C) of U distinct tokens in the model's type; of each position the slot of its
    token, int32 (-1: not known yet), and its scale, float32; before the slots those of the w - 1
    tokens that the first position sees (-1: there is none). The compiled kernel also has the rows'
    key components that RoPE turns, layer by layer."""

    name = "grams"

    def __init__(self, projections: Projections, kernel: KernelName = "torch") -> None:
        super().__init__(projections, kernel)
        p = projections
        c, self._window = p.config, p.config.attention.initial_window
        self._slot_of = SlotTable(c.vocab_size)
        self._rows = GrowingRows((self._window, c.hidden_size), p.dtype, p.device)
        self._before = self._window - 1
        self._slots = torch.full((self._before,), -1, dtype=torch.int32, device=p.device)
        self._scales = torch.empty(0, device=p.device)
        self._phases = PhaseTables.empty(p.rotary, p.device)
        self._compiled: GramKernel | None = None
        if kernel == "native":
            self._compiled = gram_kernel_for(c, p.dtype)
        self.kernel = "torch" if self._compiled is None else "native"
        self._pairs = [GramPairs(self._compiled, c) for _ in range(c.num_layers)]

    def edited(self, at: int, removed: int, added: int) -> None:
        if at < len(self._scales):
            hole = self._scales.new_full((added,), -1)
            self._scales = torch.cat((self._scales[:at], hole, self._scales[at + removed :]))
            at += self._before
            rest = self._slots[at + removed :]
            self._slots = torch.cat((self._slots[:at], hole.int(), rest))
            if at == self._before:  # other tokens stand before the first position
                self._slots[at : at + 1] = -1

    def sync(self, tokens: Tokens) -> None:
        p, n = self.projections, len(tokens)
        if (new := n - len(self._scales)) > 0:
            hole = self._slots.new_full((new,), -1)
            self._slots = torch.cat((self._slots, hole))
            self._scales = torch.cat((self._scales, hole.float()))
        if self._compiled is not None:
            self._phases.sync(p.rotary, n, tokens.total)
        missing = torch.nonzero(self._slots[self._before :] < 0).flatten().cpu()
        for part in missing.split(GRAMS_BLOCK) if len(missing) else ():  # type: ignore[no-untyped-call]
            self._derive(tokens, part)
        self.length, self.total = n, tokens.total

    def _derive(self, tokens: Tokens, positions: Tensor) -> None:
        """Slots and scales of ``positions`` (m,), ascending."""
        p, first = self.projections, int(positions[0])
        ids = tokens.slice(first, int(positions[-1]) + 1)[positions - first]
        seen = grams(ids, p.config)  # (m, w)
        fresh = self._slot_of.assign(torch.unique(seen[seen >= 0]))
        if len(fresh):
            self._rows.extend(len(fresh)).copy_(p.parts(fresh))
        slots = self._slot_of.of(seen.clamp(min=0)).masked_fill_(seen < 0, -1).to(p.device)
        at = slots.clamp(min=0).long() * self._window
        at += torch.arange(self._window, device=p.device)
        parts = self._rows.rows.flatten(0, 1)[at]  # (m, w, C)
        sums = parts.float().masked_fill_((slots < 0).unsqueeze(-1), 0.0).sum(1)
        where = positions.to(p.device)
        self._slots[self._before + where] = slots[:, 0]
        if first == 0:
            self._slots[: self._before] = slots[0, 1:].flip(0)
        self._scales[where] = (sums.square().mean(-1) + p.config.norm_eps).rsqrt()

    def attend(self, layer: int, query: Tensor, phases: Tensor) -> Attended:
        if self._compiled is not None:
            return self._attend_compiled(self._compiled, layer, query, phases)
        p, heads, w = self.projections, self.projections.config.num_heads, self._window
        absorbed = AbsorbedQuery.of(p, layer, query, phases)
        rows = self._rows.rows.flatten(0, 1)
        none = len(rows)  # where there is no token any more
        products = torch.nn.functional.pad((rows @ absorbed.matrix).float(), (0, 0, 0, 1))
        softmax = OnlineSoftmax(none + 1, heads, p.device)
        for start in range(0, self.length, GRAMS_BLOCK):
            stop = min(start + GRAMS_BLOCK, self.length)
            scales = self._scales[start:stop, None]
            at = [self._parts(start, stop, back, none) for back in range(w)]
            total = products.index_select(0, at[0])
            for part in at[1:]:
                total += products.index_select(0, part)
            coefs = absorbed.split(total.mul_(scales).add_(absorbed.biases))
            turned = p.rotary.phases(start, stop, self.total, p.device)
            weights = softmax.weigh(coefs.scores(turned.unsqueeze(-1))).squeeze(-1) * scales
            for part in at:
                softmax.total.index_add_(0, part, weights)
        weights, lse = softmax.result()
        mixed = weights[:none].t().to(rows.dtype) @ rows
        return Attended(p.project_values(layer, mixed), lse)

    def _parts(self, start: int, stop: int, back: int, none: int) -> Tensor:
        """(stop - start,) int64: of positions start..stop-1 the row of the token ``back`` before;
        ``none`` where there is none."""
        skip = self._before - back
        slots = self._slots[start + skip : stop + skip].long()
        return (slots * self._window + back).masked_fill_(slots < 0, none)

    def _attend_compiled(
        self, kernel: GramKernel, layer: int, query: Tensor, phases: Tensor
    ) -> Attended:
        p, rows = self.projections, self._rows.rows.flatten(0, 1)
        probes = plain_probes(query, p.rotary.half, p.config.num_kv_heads)
        key, constants = (t.flatten(0, 1) for t in p.absorb_keys(layer, probes))
        vectors, fixed = p.rotary_keys(layer)
        pairs = self._pairs[layer]
        pairs.derive(rows, vectors)
        s = (rows @ key.to(rows.dtype).t()).float()
        where = Positions(self._slots, self._scales, self._phases)
        blocks = [
            kernel.attend(query[h], phases, where, table.rows, s[:, h], constants[h], fixed[h])
            for h, table in pairs.blocks()
        ]
        weights, lse = joined(blocks, 1)  # (U * w, H)
        return Attended(p.project_values(layer, weights.t().to(rows.dtype) @ rows), lse)

    @property
    def nbytes(self) -> int:
        each = (self._slots.nbytes, self._scales.nbytes, self._phases.nbytes, self._rows.nbytes)
        return sum(each) + self._slot_of.nbytes + sum(pairs.nbytes for pairs in self._pairs)
