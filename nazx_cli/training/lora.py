"""Low-rank adaptation (LoRA, arXiv 2106.09685) of the decoder's linear layers.

    y = W x + (alpha / r) B A x        A (r, in) random, B (out, r) zero at first

The decoder stacks the matrices that a checkpoint keeps one by one (query, key, value); each of
those has its own A and B here, as PEFT has it. Masters are float32; the products are done in
the decoder's type with copies that ``refresh`` makes once a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nazx_cli.checkpoint.adapters.lora import Adapter, LoraPair, block_matrices, row_order
from nazx_cli.checkpoint.recipes import Recipe
from nazx_cli.errors import UsageError
from nazx_cli.model.decoder import Decoder
from nazx_cli.model.layers import QuantizedLinear, multiply


@dataclass(frozen=True)
class LoraSettings:
    """``targets`` are the last names of the checkpoint's modules (``q_proj``); none: all."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ()


class LoraLinear(QuantizedLinear):
    """A linear layer with low-rank additions; ``rows`` are the outputs of each of them.

    It keeps to the contract of layers that are not a plain matrix, so that all that runs a
    decoder runs it. ``chosen`` tells which of the stacked matrices are adapted.
    """

    def __init__(
        self, base: nn.Module, rows: Sequence[int], chosen: Sequence[bool], settings: LoraSettings
    ) -> None:
        super().__init__()
        self.base = base
        self.in_features: int = base.in_features  # type: ignore[assignment]
        self.out_features: int = base.out_features  # type: ignore[assignment]
        self.bias: nn.Parameter | None = base.bias  # type: ignore[assignment]
        self.rows, self.chosen = tuple(rows), tuple(chosen)
        self.rank, self.scale = settings.rank, settings.alpha / settings.rank
        device = next(base.buffers()).device if not list(base.parameters()) else None
        weight = next(base.parameters(), None)
        where = weight.device if weight is not None else device
        down, bound = self.rank * sum(self.chosen), 1 / math.sqrt(self.in_features)
        self.down = nn.Parameter(torch.empty(down, self.in_features, device=where))
        nn.init.uniform_(self.down, -bound, bound)
        self.up = nn.ParameterList(
            nn.Parameter(torch.zeros(count, self.rank, device=where))
            for count, use in zip(self.rows, self.chosen, strict=True)
            if use
        )
        self._copies: tuple[Tensor, list[Tensor]] = (self.down, list(self.up))

    @property
    def masters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [self.down, *self.up]

    @property
    def dtype(self) -> torch.dtype:
        """The type that is computed in."""
        return self._copies[0].dtype

    def refresh(self, dtype: torch.dtype) -> None:
        """Copy the masters into the type that is computed in."""
        self._copies = self.down.to(dtype), [up.to(dtype) for up in self.up]

    def forward(self, x: Tensor) -> Tensor:
        """(T, in) to (T, out)."""
        return self._add(self.base(x), x, 0, self.out_features)

    def product(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        stop = self.out_features if stop is None else stop
        if isinstance(self.base, QuantizedLinear):
            out = self.base.product(x, start, stop)
        else:
            weight: Tensor = self.base.weight  # type: ignore[assignment]
            out = multiply(x, weight[start:stop])
        return self._add(out, x, start, stop)

    def dense(self, start: int = 0, stop: int | None = None) -> Tensor:
        stop = self.out_features if stop is None else stop
        down = self._copies[0]
        eye = torch.eye(self.in_features, dtype=down.dtype, device=down.device)
        return self.product(eye, start, stop).t()

    def _add(self, out: Tensor, x: Tensor, start: int, stop: int) -> Tensor:
        """``out`` (T, stop - start) plus the additions to these rows."""
        down, ups = self._copies
        low = F.linear(x, down)
        if len(self.rows) == 1:
            return torch.addmm(out, low, ups[0][start:stop].t(), alpha=self.scale)
        parts: list[Tensor] = []
        at, number = 0, 0
        for count, use in zip(self.rows, self.chosen, strict=True):
            first, last = max(start - at, 0), min(stop - at, count)
            if first < last:
                if use:
                    mine = low[:, number * self.rank : (number + 1) * self.rank]
                    parts.append(F.linear(mine, ups[number][first:last]))
                else:
                    parts.append(out.new_zeros(len(out), last - first))
            at += count
            number += use
        return torch.add(out, torch.cat(parts, -1), alpha=self.scale)


@dataclass(frozen=True)
class Adapted:
    """A layer with additions, and which recipe of the checkpoint it stands for."""

    layer: LoraLinear
    recipe: Recipe


def attach(decoder: Decoder, settings: LoraSettings) -> list[Adapted]:
    """Freeze ``decoder`` and put additions to its linear layers; ``UsageError`` where the
    targets name none of them."""
    if settings.rank < 1:
        raise UsageError("the rank of an adapter is at least 1", "try --rank 16")
    for parameter in decoder.parameters():
        parameter.requires_grad_(False)
    found: list[Adapted] = []
    known: set[str] = set()
    for recipe in block_matrices(decoder.config):
        leaves = [module_name(name).rpartition(".")[2] for name, _ in recipe.sources]
        known.update(leaves)
        chosen = [not settings.targets or leaf in settings.targets for leaf in leaves]
        if not any(chosen):
            continue
        path = recipe.parameter.removesuffix(".weight")
        parent, _, leaf = path.rpartition(".")
        holder = decoder.get_submodule(parent)
        rows = [shape[0] for _, shape in recipe.sources]
        layer = LoraLinear(getattr(holder, leaf), rows, chosen, settings)
        layer.refresh(decoder.dtype)
        setattr(holder, leaf, layer)
        found.append(Adapted(layer, recipe))
    wrong = set(settings.targets) - known
    if wrong or not found:
        raise UsageError(
            f"this model has no linear layer called {', '.join(sorted(wrong)) or 'so'}",
            f"choose from {', '.join(sorted(known))}",
        )
    return found


def module_name(tensor: str) -> str:
    """``model.layers.0.mlp.up_proj`` of its weight's name."""
    return tensor.removesuffix(".weight")


def pairs(adapted: Sequence[Adapted]) -> Iterator[tuple[str, LoraPair]]:
    """Each module's A and B as a checkpoint's rows have them, float32."""
    for each in adapted:
        number = 0
        for (name, _), use in zip(each.recipe.sources, each.layer.chosen, strict=True):
            if not use:
                continue
            rank = each.layer.rank
            down = each.layer.down.detach()[number * rank : (number + 1) * rank]
            up = each.layer.up[number].detach()
            if len(each.recipe.sources) == 1:
                back = torch.argsort(row_order(each.recipe)).to(up.device)
                up = up[back]
            yield module_name(name), LoraPair(down, up)
            number += 1


def begin_from(adapted: Sequence[Adapted], adapters: Sequence[Adapter]) -> None:
    """Begin from what ``adapters`` add, matrix by matrix: that of one, or the mean of several that
    were tuned from the same one ("Model soups", arXiv 2203.05482).

    A matrix that none of them has stays as it is. ``UsageError`` where they differ in what they
    have, or in rank from what is trained.
    """
    check_alike(adapters, adapted[0].layer.rank)
    with torch.no_grad():
        for each in adapted:
            rank, number = each.layer.rank, 0
            for (name, _), use in zip(each.recipe.sources, each.layer.chosen, strict=True):
                if not use:
                    continue
                module = module_name(name)
                if module in adapters[0].pairs:
                    downs = [adapter.pairs[module].down.float() for adapter in adapters]
                    ups = [
                        adapter.pairs[module].up.float()
                        * (adapter.scales[module] / each.layer.scale)
                        for adapter in adapters
                    ]
                    up = torch.stack(ups).mean(0)
                    if len(each.recipe.sources) == 1:
                        up = up[row_order(each.recipe)]
                    down = torch.stack(downs).mean(0)
                    each.layer.down[number * rank : (number + 1) * rank].copy_(down)
                    each.layer.up[number].copy_(up)
                number += 1
            each.layer.refresh(each.layer.dtype)


def check_alike(adapters: Sequence[Adapter], rank: int) -> None:
    """Raise ``UsageError`` where a training of ``rank`` cannot begin from ``adapters``."""
    first = adapters[0]
    for adapter in adapters:
        if adapter.pairs.keys() != first.pairs.keys():
            raise UsageError(
                f"{adapter.name} and {first.name} are adapters of different layers",
                "name only such as were tuned from the same one",
            )
        ranks = sorted({len(pair.down) for pair in adapter.pairs.values()} - {rank})
        if ranks:
            raise UsageError(f"{adapter.name} has rank {ranks[0]}", f"add --rank {ranks[0]}")
