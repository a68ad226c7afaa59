"""From a checkpoint folder to a decoder in memory."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from nazx_cli.checkpoint.adapters.lora import Adapter, adapted, block_matrices
from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.checkpoint.quantized import agreed_kind, check_tensors, stored_kind, stored_tensors
from nazx_cli.checkpoint.recipes import Recipe, recipes
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError, UsageError, first_line
from nazx_cli.kernels.processor import multiplies_bfloat16
from nazx_cli.model.decoder import Decoder
from nazx_cli.model.libraries import loading
from nazx_cli.model.offload import keep_in_host_memory
from nazx_cli.names import DEVICES, DTYPES


@loading()
def load_decoder(
    folder: Path,
    device: str,
    dtype: str,
    quantize: str | None = None,
    adapter: Adapter | None = None,
    on_device: int | None = None,
    host_embedding: bool = False,
    parts: int = 1,
) -> Decoder:
    """Read ``config.json`` and the weights of ``folder`` on to ``device`` in ``dtype``.

    ``quantize`` (int8 or nf4) quantizes the matrices of the blocks; a checkpoint that is
    quantized already stays as it is. ``adapter`` is merged before. Of the layers the first
    ``on_device`` stay on the device (None: all), the others in host memory, and so does an
    embedding that is not the output head as well with ``host_embedding``. Of matrices in ``parts``
    this process reads and holds its own; as many others do the same at once. Names and shapes are
    checked against the configuration before anything is allocated; the weights are then converted
    one parameter at a time, so that no second copy of the model is held. ``ModelUnavailableError``
    names what is broken, ``UsageError`` a wrong device, type or quantization.
    """
    config = ModelConfig.from_folder(folder)
    checkpoint = Checkpoint.open(folder)
    stored = stored_kind(config)
    kind = agreed_kind(config, quantize)
    check_tensors(config, checkpoint)
    if adapter is not None:
        checkpoint = adapted(checkpoint, config, adapter)
    where = resolve_device(device)
    what = resolve_dtype(dtype, where)
    with torch.device("meta"):
        decoder = Decoder(config)
    decoder.quantization = kind
    if parts > 1:
        from nazx_cli.model.split import split

        split(decoder, where, parts)
    for recipe in recipes(config):
        if kind is not None and recipe.is_block_matrix:
            _quantized(decoder, checkpoint, recipe, kind, where, what, packed=stored is not None)
        else:
            _assign(decoder, checkpoint, recipe, where, what)
        if recipe.parameter == "embed.weight" and host_embedding and not config.tie_embeddings:
            _to_host(decoder, recipe)
            decoder.embed.place = where
        if on_device is not None and recipe.layer is not None and recipe.layer >= on_device:
            _to_host(decoder, recipe)
    for layer in range(config.num_layers if on_device is None else on_device, config.num_layers):
        keep_in_host_memory(decoder, layer, where)
    if config.tie_embeddings:
        decoder.head.weight = decoder.embed.weight
    if decoder.far is not None:
        decoder.far.prepare(decoder.embed)
    return decoder.eval()


@loading()
def change_adapter(
    decoder: Decoder, folder: Path, before: Adapter | None, after: Adapter | None
) -> None:
    """Load the matrices of a decoder anew where ``before`` is merged into them or ``after`` is to
    be, so that they are as if it had been loaded with ``after``; errors as for that."""
    config = decoder.config
    checkpoint = Checkpoint.open(folder)
    if after is not None:
        checkpoint = adapted(checkpoint, config, after)
    touched = {*(before.pairs if before else ()), *(after.pairs if after else ())}
    for recipe in block_matrices(config):
        if touched.isdisjoint(name.removesuffix(".weight") for name, _ in recipe.sources):
            continue
        if decoder.quantization is not None:
            kind, where, what = decoder.quantization, decoder.device, decoder.dtype
            _quantized(decoder, checkpoint, recipe, kind, where, what, packed=False)
        else:
            _assign(decoder, checkpoint, recipe, decoder.device, decoder.dtype)


def resolve_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` takes CUDA, then Apple's GPU, then the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        if name.split(":")[0] not in DEVICES:
            known = ", ".join(DEVICES)
            raise UsageError(f"there is no device {name!r}", f"choose one of {known}") from None
        raise UsageError(
            f"the device {name!r} cannot be used: {first_line(error).partition('. ')[0]}",
            "try --device cpu",
        ) from None
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The torch type called ``name``; ``auto`` takes bfloat16 where the device multiplies it
    natively (half the memory, and several times the speed of float32), else float32."""
    if name not in DTYPES:
        raise UsageError(f"unknown type {name!r}", f"choose one of {', '.join(DTYPES)}")
    if name == "auto":
        name = "bfloat16" if _native_bfloat16(device) else "float32"
    found: torch.dtype = getattr(torch, name)
    return found


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return multiplies_bfloat16()
    return device.type == "mps"


def _to_host(decoder: Decoder, recipe: Recipe) -> None:
    """Move what ``recipe`` made from the device to host memory."""
    module = decoder.get_submodule(recipe.parameter.rpartition(".")[0])
    for name, parameter in module.named_parameters():
        if not parameter.is_meta:
            setattr(module, name, nn.Parameter(parameter.detach().to("cpu"), requires_grad=False))
    for name, buffer in module.named_buffers():
        setattr(module, name, buffer.to("cpu"))


def _quantized(
    decoder: nn.Module,
    checkpoint: Checkpoint,
    recipe: Recipe,
    kind: str,
    device: torch.device,
    dtype: torch.dtype,
    *,
    packed: bool,
) -> None:
    """Put a quantized layer in the place of the one that has the weight ``recipe``.

    Its bias is another recipe, and comes later: until then the empty one is kept.
    """
    from nazx_cli.quantization.quantize import quantize_matrix, restore_linear

    name = recipe.parameter.removesuffix(".weight")
    parent, _, leaf = name.rpartition(".")
    bias: nn.Parameter | None = decoder.get_submodule(name).bias  # type: ignore[assignment]
    if packed:
        tensors = {
            key: checkpoint.read(stored.name, stored_as=stored.dtype)
            for key, stored in stored_tensors(recipe, kind).items()
        }
    else:
        tensors = quantize_matrix(recipe.read(checkpoint), kind, device)
    layer = restore_linear(tensors, recipe.matrix_shape, None, kind, dtype, device)
    layer.bias = bias
    setattr(decoder.get_submodule(parent), leaf, layer)


def _assign(
    decoder: Decoder,
    checkpoint: Checkpoint,
    recipe: Recipe,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Put the parameter of ``recipe`` in its place, or this process's part of it."""
    name, part = recipe.parameter, None
    module_name, _, leaf = name.rpartition(".")
    module = decoder.get_submodule(module_name)
    current, place = getattr(module, leaf), _whole
    if decoder.is_split:
        from nazx_cli.model.split import like, part_of

        part, place = part_of(current), like
    if part is None and (current is None or tuple(current.shape) != recipe.shape):
        raise ModelUnavailableError(f"the weights of {name} do not fit this version of NazX")
    kept = torch.float32 if recipe.offset else dtype
    tensor = recipe.read(checkpoint, part, kept).to(device).contiguous()
    setattr(module, leaf, place(current, tensor))


def _whole(parameter: Tensor, tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
