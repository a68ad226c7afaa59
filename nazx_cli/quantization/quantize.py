"""Linear layers in int8 and nf4, quantized by bitsandbytes, which is loaded here.

Quantized are the linear layers of the blocks (qkv, out, gate, up, down). Embeddings, output
head, norms and biases stay in the compute type. Weights count as they are in the checkpoint, so
that the quantized matrix does not depend on the compute type or the device.

A product on CUDA is bitsandbytes' own (LLM.int8() with outliers above 6 kept apart; 4-bit).
Elsewhere the matrix is dequantized piece by piece, or, for up to eight rows on a CPU, multiplied as
it is: by compiled code of our own (``kernels.native.products``), or where that cannot be had, in
bfloat16, by torch's kernel for int8 and bitsandbytes' for nf4. Activations are quantized in one
case: a long prompt through int8 on a CPU that multiplies int8 (``Int8Linear.forward``).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nazx_cli.errors import NazxError, UsageError, first_line
from nazx_cli.kernels.native.products import multiplies
from nazx_cli.model.layers import QuantizedLinear
from nazx_cli.quantization.cost import BLOCK, check_kind
from nazx_cli.quantization.int8 import Int8Linear, quantize_int8
from nazx_cli.quantization.nf4 import Nf4Linear, TiledNf4Linear, kernel_works, quantize_nf4
from nazx_cli.quantization.piecewise import GROUP


def quantize_linear(
    weight: Tensor,
    bias: Tensor | None,
    kind: str,
    compute_dtype: torch.dtype,
    device: torch.device | str,
) -> QuantizedLinear:
    """A layer with ``weight`` (out, in), of any float type, quantized on to ``device``.

    Pieces of about a million weights are converted at a time; ``weight`` itself can be dropped
    afterwards. ``UsageError`` for an unknown kind or where bitsandbytes is missing.
    """
    where = torch.device(device)
    rows, columns = weight.shape
    packed = quantize_matrix(weight, kind, where)
    return restore_linear(packed, (rows, columns), bias, kind, compute_dtype, where)


def quantize_matrix(weight: Tensor, kind: str, device: torch.device) -> dict[str, Tensor]:
    """The tensors that a checkpoint keeps of ``weight`` (out, in): see ``checkpoint.quantized``."""
    check_kind(kind)
    load_library()
    return (quantize_int8 if kind == "int8" else quantize_nf4)(weight, device)


def restore_linear(
    tensors: Mapping[str, Tensor],
    shape: tuple[int, int],
    bias: Tensor | None,
    kind: str,
    compute_dtype: torch.dtype,
    device: torch.device,
) -> QuantizedLinear:
    """The layer (out, in) that holds the ``tensors`` of ``quantize_matrix``."""
    load_library()
    held = {name: tensor.to(device) for name, tensor in tensors.items()}
    parameter = None if bias is None else nn.Parameter(bias, requires_grad=False)
    if check_kind(kind) == "int8":
        return Int8Linear(held["weight"], held["SCB"], parameter, compute_dtype)
    fused = device.type == "cpu" and compute_dtype == torch.bfloat16 and not multiplies()
    tiles = shape[0] % GROUP == 0 and shape[1] % BLOCK == 0
    form = TiledNf4Linear if fused and tiles and kernel_works() else Nf4Linear
    return form(held["weight"].view(-1), held["absmax"], shape, parameter, compute_dtype)


def load_library() -> None:
    """Import bitsandbytes, so that it can be imported by name afterwards.

    ``UsageError`` where it is not installed, ``NazxError`` where it is broken.
    """
    for name in ("backends.cpu.ops", "autograd._functions"):  # warn about what is meant to be
        logging.getLogger(f"bitsandbytes.{name}").setLevel(logging.ERROR)
    # On import bitsandbytes would fetch a kernel from the Hub if the package kernels is there:
    # NazX runs no code that the person did not install.
    hides = "kernels" not in sys.modules
    if hides:
        sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent and absent.split(".")[0] == "bitsandbytes":
            raise UsageError(
                "quantized weights need bitsandbytes, which is not installed",
                "pip install bitsandbytes",
            ) from None
        raise NazxError(
            f"bitsandbytes cannot be loaded: {first_line(error)}",
            "pip install --upgrade bitsandbytes",
        ) from None
    finally:
        if hides:
            sys.modules.pop("kernels", None)
