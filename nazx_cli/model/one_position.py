"""One further position, or a few, through all layers in one compiled call, where that can be had.

PyTorch's path, in ``decoder``, is the reference; what this one cannot run is left to it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from nazx_cli.families.base import LayerKind
from nazx_cli.kernels.native.step import (
    HeadWeights,
    LayerWeights,
    NormWeights,
    Step,
    step_library,
)
from nazx_cli.model.decoder import Block, Decoder
from nazx_cli.model.layers import Norm, matrix_of


class OnePosition:
    """A ``Step`` over a decoder's weights as they are now; ``kinds`` are those of its layers, in
    the order in which it wants their sights."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._step: Step | None = None
        self._library: ctypes.CDLL | None = None
        self._held: list[tuple[dict[str, Any], str, Any]] = []
        self.kinds: tuple[LayerKind, ...] = tuple(dict.fromkeys(decoder.config.layer_kinds))

    def step(self) -> Step | None:
        """The compiled layers, made anew after any weight was replaced; None where PyTorch has to
        run them."""
        decoder = self._decoder
        library = step_library(decoder.config, decoder.device, decoder.dtype)
        if library is None:
            return None
        replaced = any(store.get(name) is not held for store, name, held in self._held)
        if not self._held or replaced or library is not self._library:
            self._library, self._held = library, list(_parts(decoder))
            # Layers that are kept elsewhere until they run have no weights to read here.
            here = all(held.is_cpu for *_, held in self._held if isinstance(held, Tensor))
            self._step = self._made(library) if here else None
        return self._step

    def _made(self, library: ctypes.CDLL) -> Step | None:
        decoder = self._decoder
        made = [self._layer(at, block) for at, block in enumerate(decoder.layers)]
        layers = [layer for layer in made if layer is not None]
        head, norm = matrix_of(decoder.head), _norm(decoder.final_norm)
        if head is None or norm is None or len(layers) < len(made):
            return None
        return Step(library, decoder.config, layers, HeadWeights(norm, head))

    def _layer(self, at: int, block: Block) -> LayerWeights | None:
        linears = (block.qkv, block.out, block.mlp.up, block.mlp.down)
        matrices = [matrix for linear in linears if (matrix := matrix_of(linear)) is not None]
        if len(matrices) < len(linears):
            return None
        norms = (
            *(block.norm1, block.q_norm, block.k_norm),
            *(block.norm1_after, block.norm2, block.norm2_after),
        )
        sight = self.kinds.index(self._decoder.config.layer_kinds[at])
        return LayerWeights(tuple(matrices), tuple(map(_norm, norms)), sight)


def _parts(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """All that can be replaced below ``module``: where it is kept, under which name, and itself."""
    for each in module.modules():
        for store in (each._parameters, each._buffers, each._modules):
            yield from ((store, name, held) for name, held in store.items())


def _norm(norm: Norm | None) -> NormWeights | None:
    return None if norm is None else NormWeights(norm.weight, norm.bias)
