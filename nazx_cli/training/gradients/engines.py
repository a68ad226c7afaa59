"""What computes losses and gradients: by autograd for any model, or written out for LoRA on
Llama; with LoRA, or on all weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nazx_cli.model.decoder import Decoder
from nazx_cli.training.gradients.forward import answer_logits
from nazx_cli.training.gradients.fused import Fused, can_fuse
from nazx_cli.training.lora import Adapted
from nazx_cli.training.packing import Layout, Pack, lay_out, weights_of


class PackGradients(Protocol):
    """``parameters`` are the float32 masters that are trained."""

    parameters: list[nn.Parameter]

    def refresh(self) -> None:
        """Compute with the masters as they are now."""

    def loss(self, layout: Layout, weights: Tensor, scale: float | None) -> Tensor:
        """The weighted sum of the losses of ``layout.targets``, weights (A,); gradients of
        ``scale`` times that are added to the masters', if it is not None."""


class OnPacks:
    """An engine of the trainer's whose items are packs."""

    def __init__(self, gradients: PackGradients, device: torch.device | str = "cpu") -> None:
        self._gradients, self._device = gradients, device
        self.parameters = gradients.parameters

    def refresh(self) -> None:
        """See ``PackGradients``."""
        self._gradients.refresh()

    def loss(self, item: Pack, scale: float | None) -> float:
        """See ``trainer.Engine``."""
        layout, weights = lay_out(item, self._device), weights_of(item).to(self._device)
        return float(self._gradients.loss(layout, weights, scale))


class Masters:
    """All weights of a decoder: float32 copies, unless it computes in float32 itself.

    ``exact`` are their values in more digits than the decoder has.
    """

    def __init__(self, decoder: Decoder, exact: Sequence[Tensor] | None = None) -> None:
        self._own = list(dict.fromkeys(decoder.parameters()))
        for parameter in self._own:
            parameter.requires_grad_(True)
        self._copied = decoder.dtype != torch.float32
        self.parameters = self._own
        if self._copied:
            values = [p.detach() for p in self._own] if exact is None else exact
            self.parameters = [nn.Parameter(p.float()) for p in values]

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the masters to what the decoder computes with."""
        if self._copied:
            for own, master in zip(self._own, self.parameters, strict=True):
                own.copy_(master)

    def gather(self) -> None:
        """Add the decoder's gradients to those of the masters."""
        if not self._copied:
            return
        for own, master in zip(self._own, self.parameters, strict=True):
            if own.grad is None:
                continue
            wide = own.grad.float()
            master.grad = wide if master.grad is None else master.grad.add_(wide)
            own.grad = None


class LoraByAutograd:
    """Additions to any decoder."""

    def __init__(self, decoder: Decoder, adapted: Sequence[Adapted]) -> None:
        self.decoder, self._adapted = decoder, adapted
        self.parameters = [p for each in adapted for p in each.layer.masters]

    def refresh(self) -> None:
        for each in self._adapted:
            each.layer.refresh(self.decoder.dtype)

    def loss(self, layout: Layout, weights: Tensor, scale: float | None) -> Tensor:
        return _loss(self.decoder, layout, weights, scale)


class FullByAutograd:
    """All weights of a decoder."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self._masters = decoder, Masters(decoder)
        self.parameters = self._masters.parameters
        self.refresh = self._masters.refresh

    def loss(self, layout: Layout, weights: Tensor, scale: float | None) -> Tensor:
        total = _loss(self.decoder, layout, weights, scale)
        self._masters.gather()
        return total


def lora_engine(
    decoder: Decoder, adapted: Sequence[Adapted], bases: Mapping[str, Tensor] | None = None
) -> PackGradients:
    """The quickest engine for additions to ``decoder``."""
    if can_fuse(decoder):
        return Fused(decoder, adapted, bases)
    return LoraByAutograd(decoder, adapted)


def _loss(decoder: Decoder, layout: Layout, weights: Tensor, scale: float | None) -> Tensor:
    with torch.set_grad_enabled(scale is not None):
        logits = answer_logits(decoder, layout).float()
        total = (F.cross_entropy(logits, layout.targets, reduction="none") * weights).sum()
        if scale is not None:
            (total * scale).backward()  # type: ignore[no-untyped-call]
    return total.detach()
