"""All layers of a decoder, and its head, for one further position or a few in one call: ``step.c``.

In PyTorch such a position takes some thirty operations a layer, whose own cost comes to half of
what reading the weights takes. Weights are read where they lie; nothing of them is copied.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.kernels.native.compiler import compile_library, target
from nazx_cli.kernels.native.products import CMatrix, Matrix, address

_SOURCE = Path(__file__).with_name("step.c")
_SYMBOLS = ("has_vectors", "scratch_size", "run_step")
_ACTIVATIONS = {
    "silu": 0,
    "gelu": 1,
    "gelu_new": 2,
    "gelu_pytorch_tanh": 2,
    "gelu_fast": 2,
    "relu": 3,
}


@dataclass(frozen=True)
class NormWeights:
    """Of an RMSNorm, or with a bias of a LayerNorm, in float32 or the compute type."""

    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class LayerWeights:
    """What one block computes with.

    matrices   qkv, out, up, down
    norms      norm1, q_norm, k_norm, norm1_after, norm2, norm2_after; None: it does without
    sight      which of a position's sights that ``Step.run`` is given
    """

    matrices: tuple[Matrix, ...]
    norms: tuple[NormWeights | None, ...]
    sight: int


@dataclass(frozen=True)
class HeadWeights:
    """What turns final states into logits."""

    norm: NormWeights
    matrix: Matrix


@dataclass(frozen=True)
class Sight:
    """Which rows of the cache a query sees: first..stop-1, rotated by ``phases`` (2F,) float32,
    and the first ``sinks`` rows, rotated by ``capped`` (2F,). Without phases nothing is rotated."""

    phases: Tensor | None
    first: int
    stop: int
    sinks: int = 0
    capped: Tensor | None = None


class _Norm(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "bias")),
        ("wide", ctypes.c_int64),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        ("norms", _Norm * 6),
        ("matrices", CMatrix * 4),
        ("sight", ctypes.c_int64),
    )


class _Sight(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("phases", "capped")),
        *((name, ctypes.c_int64) for name in ("half", "sinks", "first", "stop")),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        ("layers", ctypes.c_void_p),
        ("final_norm", _Norm),
        ("head", CMatrix),
        *(
            (name, ctypes.c_int64)
            for name in (
                "count",
                "kinds",
                "hidden",
                "heads",
                "kv_heads",
                "dim",
                "inner",
                "gated",
                "activation",
                "parallel",
            )
        ),
        *(
            (name, ctypes.c_float)
            for name in ("eps", "residual_scale", "attention_scale", "attention_cap")
        ),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("model", "sights", "keys", "values")),
        *((name, ctypes.c_int64) for name in ("positions", "capacity", "at", "seen")),
        *((name, ctypes.c_void_p) for name in ("states", "logits", "scratch")),
        ("threads", ctypes.c_int64),
    )


class Step:
    """The layers of one model, ready to run positions; it keeps the weights that it was given."""

    def __init__(
        self,
        library: ctypes.CDLL,
        config: ModelConfig,
        layers: Sequence[LayerWeights],
        head: HeadWeights,
    ) -> None:
        self._library, self._weights = library, (tuple(layers), head)
        self._layers = (_Layer * len(layers))(*map(_layer, layers))
        self._model = _Model(
            ctypes.addressof(self._layers),
            _norm(head.norm),
            CMatrix.of(head.matrix),
            len(layers),
            1 + max(layer.sight for layer in layers),
            config.hidden_size,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            config.intermediate_size,
            config.gated,
            _ACTIVATIONS[config.activation],
            config.parallel_residual,
            config.norm_eps,
            config.residual_scale,
            config.attention_scale,
            config.attention_cap or 0.0,
        )

    def run(
        self, states: Tensor, keys: Tensor, values: Tensor, at: int, sights: Sequence[Sight]
    ) -> tuple[Tensor, Tensor]:
        """Float32 logits (T, V) of T positions in a row, whose embeddings are ``states`` (T, C),
        and their final states (T, C), which the last norm has yet to see.

        Their keys and values become rows ``at`` on of ``keys`` and ``values`` (layers, kv_heads,
        capacity, D), which are contiguous; ``sights`` are those of the first position, as the
        layers number them, then those of the next. A position's logits do not depend, in any bit,
        on how many others there are.
        """
        states = states.float().clone(memory_format=torch.contiguous_format)
        logits = torch.empty(len(states), self._model.head.rows)
        seen = _sights(len(sights))(*map(_sight, sights))
        step = _Step(ctypes.addressof(self._model), ctypes.addressof(seen))
        step.keys, step.values = keys.data_ptr(), values.data_ptr()
        step.positions, step.capacity, step.at = len(states), keys.shape[2], at
        step.seen = max(sight.sinks + sight.stop - sight.first for sight in sights)
        step.threads = torch.get_num_threads()
        scratch = torch.empty(self._library.scratch_size(ctypes.byref(step)))
        step.states, step.logits = states.data_ptr(), logits.data_ptr()
        step.scratch = scratch.data_ptr()
        self._library.run_step(ctypes.byref(step))
        return logits, states


def step_library(
    config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> ctypes.CDLL | None:
    """The compiled code for a model; None where it cannot be used or compiled.

    It wants a CPU with AVX-512, AVX2 or NEON, float32 or bfloat16, and queries and keys that are
    normalized head by head where they are. ``NAZX_NATIVE=0`` turns it off.
    """
    if (
        os.environ.get("NAZX_NATIVE") == "0"
        or device.type != "cpu"
        or dtype not in (torch.float32, torch.bfloat16)
        or config.qk_norm == "all"
        or config.activation not in _ACTIVATIONS
    ):
        return None
    return _compiled(dtype, target())


@lru_cache(maxsize=8)
def _compiled(dtype: torch.dtype, march: str) -> ctypes.CDLL | None:
    narrow = {"NARROW": int(dtype is torch.bfloat16)}
    library = compile_library(_SOURCE, narrow, _SYMBOLS, march)
    if library is None or not library.has_vectors():
        return None
    library.scratch_size.restype = ctypes.c_int64
    return library


def _layer(layer: LayerWeights) -> _Layer:
    norms, matrices = map(_norm, layer.norms), map(CMatrix.of, layer.matrices)
    return _Layer((_Norm * 6)(*norms), (CMatrix * 4)(*matrices), layer.sight)


def _norm(norm: NormWeights | None) -> _Norm:
    if norm is None:
        return _Norm()
    wide = norm.weight.dtype is torch.float32
    return _Norm(address(norm.weight), address(norm.bias), wide)


def _sight(sight: Sight) -> _Sight:
    half = 0 if sight.phases is None else len(sight.phases) // 2
    turns = map(address, (sight.phases, sight.capped))
    return _Sight(*turns, half, sight.sinks, sight.first, sight.stop)


@lru_cache
def _sights(count: int) -> type[ctypes.Array[_Sight]]:
    """Made once: a type that is made for every call would be a circle each time."""
    return _Sight * count
