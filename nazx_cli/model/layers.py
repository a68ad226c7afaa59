"""Normalisation, activation and the two feed-forward forms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nazx_cli.config import ModelConfig
from nazx_cli.kernels.native.products import Matrix

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_fast": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class Linear(nn.Linear):
    """A linear layer that runs a single row as matrix times vector: on a CPU in bfloat16 that
    is 1.5 times as fast as the one-row matrix product."""

    def forward(self, x: Tensor) -> Tensor:
        """(T, in) to (T, out)."""
        return multiply(x, self.weight, self.bias)


class QuantizedLinear(nn.Module, ABC):
    """A linear layer that holds its matrix (out, in) in fewer bits than it computes with.

    It takes the place of a ``Linear``; ``dense`` and ``product`` deal with rows start..stop of
    the matrix, in the compute type, and hold no more of it than they return or have to.
    """

    in_features: int
    out_features: int
    bias: nn.Parameter | None

    @abstractmethod
    def dense(self, start: int = 0, stop: int | None = None) -> Tensor:
        """(stop - start, in) rows of the dequantized matrix."""

    @abstractmethod
    def product(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """(T, stop - start) products of x (T, in) with rows of the matrix, without the bias."""

    def packed(self, start: int = 0, stop: int | None = None) -> Matrix | None:
        """Rows start..stop as they lie in memory, without the bias, where compiled code can read
        them."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """(T, in) to (T, out)."""
        out = self.product(x)
        return out if self.bias is None else out + self.bias


class Norm(nn.Module):
    """LayerNorm (with a bias) or RMSNorm (weight only) over the last dimension, of ``size``."""

    def __init__(self, config: ModelConfig, size: int | None = None) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.shape = (size or config.hidden_size,)
        self.weight = nn.Parameter(torch.empty(self.shape))
        self.bias: nn.Parameter | None = None
        if config.norm == "layer":
            self.bias = nn.Parameter(torch.empty(self.shape))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) to (..., size)."""
        if self.bias is not None:
            return F.layer_norm(x, self.shape, self.weight, self.bias, self.eps)
        if torch.is_grad_enabled():
            return _rms_norm(x, self.weight, self.eps)
        return _times(self._rms(x), self.weight).to(x.dtype)

    def standardize(self, x: Tensor) -> Tensor:
        """The part of ``forward`` that all layers share: no weight, no bias."""
        if self.bias is None:
            return self._rms(x).to(x.dtype)
        return F.layer_norm(x, self.shape, None, None, self.eps)

    def _rms(self, x: Tensor) -> Tensor:
        """x / sqrt(mean(x^2) + eps) in float32, with fewer passes than torch's own on a CPU."""
        wide = x.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = (norm.square() / x.shape[-1] + self.eps).rsqrt()
        return wide * scale if x.dtype == wide.dtype else _times(wide, scale)  # x may be in wide

    def affine(self, x: Tensor) -> Tensor:
        """The rest of it: ``forward(x) == affine(standardize(x))``."""
        return x * self.weight if self.bias is None else torch.addcmul(self.bias, x, self.weight)


class _RmsNorm(torch.autograd.Function):
    """RMSNorm that keeps one copy of its result where autograd's own keeps several in float32."""

    @staticmethod
    def forward(ctx, x, weight, eps):  # type: ignore[no-untyped-def]
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        unit = (wide * scale).to(x.dtype)
        ctx.save_for_backward(unit, scale, weight)
        return (unit * weight).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        unit, scale, weight = ctx.saved_tensors
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (grad.float() * unit).flatten(0, -2).sum(0).to(weight.dtype)
        grad = (grad * weight).to(unit.dtype)
        along = (grad * unit).float().mean(-1, keepdim=True).to(grad.dtype)
        return (grad - unit * along) * scale.to(grad.dtype), of_weight, None


_rms_norm: Callable[[Tensor, Tensor, float], Tensor] = _RmsNorm.apply


class Embedding(nn.Embedding):
    """Rows of a table, times a factor that is rounded to the table's type first.

    ``place`` is where the rows are wanted, if the table itself is in host memory.
    """

    def __init__(self, config: ModelConfig) -> None:
        # Without random numbers, for which torch would first import its compiler.
        size = config.vocab_size, config.hidden_size
        super().__init__(*size, _weight=torch.empty(size))
        self.scale = config.embedding_scale
        self.place: torch.device | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """(..., C) of token ids (...)."""
        rows = F.embedding(ids.to(self.weight.device), self.weight)
        if self.place is not None:
            rows = rows.to(self.place)
        if self.scale == 1.0:
            return rows
        return rows * torch.tensor(self.scale, dtype=rows.dtype, device=rows.device)


def grams_of(ids: Tensor, window: int) -> Tensor:
    """(..., T, w) int64 of ids (..., T): each token, the one before it and so on; -1 where there
    is none."""
    ids = ids.long()
    columns = [ids]
    for back in range(1, window):
        before = torch.full_like(ids, -1)
        before[..., back:] = ids[..., : max(0, ids.shape[-1] - back)]
        columns.append(before)
    return torch.stack(columns, -1)


class InitialConvolution(nn.Module):
    """A causal convolution over embeddings, each feature by itself: what an initial state sees of
    the tokens right before its own. ``weight`` (w, C): row d is for the token d before."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size = config.attention.initial_window, config.hidden_size
        self.weight = nn.Parameter(torch.empty(size))

    def forward(self, rows: Tensor) -> Tensor:
        """(n, C) of the embeddings (n, w, C) of each position's last w tokens, its own first."""
        return (rows * self.weight).sum(1)


class FeedForward(nn.Module):
    """Up, activate, down; or gated: ``up`` then stacks the rows of gate and up."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gated = config.gated
        self.up = Linear(c, inner * (2 if self.gated else 1), bias=bias)
        self.down = Linear(inner, c, bias=bias)
        self.activation = _ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """(T, C) to (T, C)."""
        inner: Tensor = self.up(x)
        if self.gated:
            gate, inner = inner.chunk(2, -1)
            inner = self.activation(gate) * inner
        else:
            inner = self.activation(inner)
        return self.down(inner)  # type: ignore[no-any-return]


def _times(x: Tensor, factor: Tensor) -> Tensor:
    """x * factor, in x's place where no gradient can need x: a float32 copy of the states is
    too large to make twice."""
    return x * factor if torch.is_grad_enabled() else x.mul_(factor)


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (T, in) times the transpose of weight (out, in), plus bias (out,)."""
    if len(x) > 1 or x.dtype == torch.float32:
        return F.linear(x, weight, bias)
    out = torch.mv(weight, x[0])
    return (out if bias is None else out + bias).unsqueeze(0)


def dense_weight(linear: nn.Module, start: int = 0, stop: int | None = None) -> Tensor:
    """Rows start..stop of the (out, in) matrix that a linear layer multiplies by, in the
    compute type; a quantized layer makes them anew at every call."""
    if isinstance(linear, QuantizedLinear):
        return linear.dense(start, stop)
    weight: Tensor = linear.weight  # type: ignore[assignment]
    return weight[start:stop]


def multiply_rows(linear: nn.Module, x: Tensor, start: int, stop: int) -> Tensor:
    """(T, stop - start): what ``linear`` gives for x (T, in) in the outputs start..stop."""
    bias: Tensor | None = linear.bias  # type: ignore[assignment]
    part = None if bias is None else bias[start:stop]
    if not isinstance(linear, QuantizedLinear):
        return multiply(x, dense_weight(linear, start, stop), part)
    out = linear.product(x, start, stop)
    return out if part is None else out + part


def matrix_of(linear: nn.Module) -> Matrix | None:
    """What a linear layer multiplies by, as it lies in memory; None where compiled code cannot
    read it."""
    bias: Tensor | None = linear.bias  # type: ignore[assignment]
    if isinstance(linear, QuantizedLinear):
        packed = linear.packed()
        return None if packed is None else replace(packed, bias=bias)
    weight: Tensor = linear.weight  # type: ignore[assignment]
    shape = (weight.shape[0], weight.shape[1])
    kind = str(weight.dtype).removeprefix("torch.")
    return Matrix(kind, shape, weight, bias=bias) if weight.is_contiguous() else None
