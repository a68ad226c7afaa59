"""One further position, or a few, through all layers in one compiled call, where that can be had.

PyTorch's path, in ``decoder``, is the reference; what this one cannot run is left to it.
"""

from __future__ import annotations

import ctypes

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
from nazx_cli.model.pages import enlarge
from nazx_cli.model.weights import Weights

_LONG = 32  # runs of the same weights from which on more are expected


class OnePosition:
    """A ``Step`` over a decoder's weights as they are now; ``kinds`` are those of its layers, in
    the order in which it wants their sights."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._step: Step | None = None
        self._weights = Weights(decoder)
        self._library: ctypes.CDLL | None = None
        self._runs = 0
        self.kinds: tuple[LayerKind, ...] = tuple(dict.fromkeys(decoder.config.layer_kinds))

    def step(self) -> Step | None:
        """The compiled layers, to be run now; None where PyTorch has to run them."""
        step = self.made()
        self._runs += 1
        if step is not None and self._runs == _LONG:
            enlarge(self._weights.tensors())
        return step

    def made(self) -> Step | None:
        """The compiled layers, made anew after any weight was replaced."""
        decoder = self._decoder
        if decoder.is_split:
            return None
        library = step_library(decoder.config, decoder.device, decoder.dtype)
        if library is None:
            return None
        replaced = self._weights.replaced()
        if replaced or library is not self._library:
            self._library = library
            # Layers that are kept elsewhere until they run have no weights to read here.
            here = all(tensor.is_cpu for tensor in self._weights.tensors())
            self._step, self._runs = self._compiled(library) if here else None, 0
        return self._step

    def _compiled(self, library: ctypes.CDLL) -> Step | None:
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


def _norm(norm: Norm | None) -> NormWeights | None:
    return None if norm is None else NormWeights(norm.weight, norm.bias)
