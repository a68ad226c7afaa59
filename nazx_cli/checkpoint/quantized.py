"""Quantized checkpoints: how one is kept on disk, and making it; torch is needed for making only.

``config.json`` has an entry

    "quantization": {"method": "bitsandbytes", "kind": "int8" | "nf4", "compute_dtype": "bfloat16"}

(for nf4 also ``"block_size": 64``). Embeddings, output head, norms and biases are stored under
their usual names, in ``compute_dtype``. In place of each matrix (out, in) of a block's linear
layers, under the name N of that matrix, there is

    int8   N        I8   (out, in)                     w = N * N.SCB / 127
           N.SCB    F32  (out,)
    nf4    N        U8   (ceil(out * in / 2), 1)       two codes a byte, the first in the high half
           N.absmax F32  (ceil(out * in / 64),)        w = table[code] * absmax of its 64 weights

These are bitsandbytes' own suffixes and orders. What the decoder stacks is one matrix: query, key
and value under ``...self_attn.qkv_proj.weight``, gate and up under ``...mlp.gate_up_proj.weight``,
or under the names that a family has for them fused (GPT-NeoX's rows are q, k, v then too, not
interleaved by head as in the unquantized file).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import replace as replaced
from functools import partial
from pathlib import Path
from typing import Any

from nazx_cli.checkpoint.checkpoint import FLOATS, SMALL_FILES, Checkpoint
from nazx_cli.checkpoint.recipes import Recipe, Shape, recipes
from nazx_cli.checkpoint.write import (
    STORED_AS,
    Origin,
    PendingTensor,
    building_checkpoint,
    check_dest,
    fill_folder,
    tensor_bytes,
    write_weights,
)
from nazx_cli.config import AttentionConfig, ConfigError, ModelConfig
from nazx_cli.errors import UsageError
from nazx_cli.foreign import expanded
from nazx_cli.names import OnProgress
from nazx_cli.quantization.cost import BLOCK, KINDS, check_kind

METHOD = "bitsandbytes"
ENTRY = "quantization"


@dataclass(frozen=True)
class Stored:
    """One tensor of a quantized matrix: its name in the file, type and shape."""

    name: str
    dtype: str
    shape: Shape


def stored_kind(config: ModelConfig) -> str | None:
    """``int8`` or ``nf4`` where the checkpoint of ``config`` is quantized, else None.

    ``ConfigError`` for an entry that this version does not know.
    """
    entry = config.raw.get(ENTRY)
    if entry is None:
        return None
    known = isinstance(entry, Mapping) and entry.get("method") == METHOD
    if not known or entry.get("kind") not in KINDS or entry.get("block_size", BLOCK) != BLOCK:
        raise ConfigError(
            f"config.json: the weights are quantized in a way NazX does not know: {entry!r:.120}",
            f"NazX reads {METHOD} of kind {' or '.join(KINDS)}; quantize the original again",
        )
    return str(entry["kind"])


def agreed_kind(config: ModelConfig, wanted: str | None) -> str | None:
    """How the weights are to be held: as ``wanted``, or as the checkpoint has them already.

    ``UsageError`` for an unknown kind, or where the checkpoint is of another kind.
    """
    stored = stored_kind(config)
    if wanted is None:
        return stored
    check_kind(wanted)
    if stored not in (None, wanted):
        raise UsageError(
            f"the weights of this model are {stored} already, they cannot become {wanted}",
            f"leave --quantize out, or use the model that they were made from as {wanted}",
        )
    return wanted


def stored_tensors(recipe: Recipe, kind: str) -> dict[str, Stored]:
    """What is kept of a quantized matrix, by the names that ``quantize`` gives its tensors."""
    name = recipe.sources[0][0]
    if len(recipe.sources) > 1:
        name = name.replace(".q_proj.", ".qkv_proj.").replace(".gate_proj.", ".gate_up_proj.")
    rows, columns = recipe.matrix_shape
    if kind == "int8":
        return {
            "weight": Stored(name, "I8", (rows, columns)),
            "SCB": Stored(f"{name}.SCB", "F32", (rows,)),
        }
    count = rows * columns
    return {
        "weight": Stored(name, "U8", (-(-count // 2), 1)),
        "absmax": Stored(f"{name}.absmax", "F32", (-(-count // BLOCK),)),
    }


def check_tensors(config: ModelConfig, checkpoint: Checkpoint) -> None:
    """Hold names, shapes and types of all tensors to the configuration, from their headers."""
    kind = stored_kind(config)
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, str] = {}
    for recipe in recipes(config):
        if kind is None or not recipe.is_block_matrix:
            shapes.update(recipe.sources)
            continue
        for stored in stored_tensors(recipe, kind).values():
            shapes[stored.name] = stored.shape
            dtypes[stored.name] = stored.dtype
    checkpoint.check(shapes, dtypes)


def weights_dtype(config: ModelConfig, checkpoint: Checkpoint) -> str:
    """int8 or nf4 of quantized weights, else the type of most of their bytes in torch's words."""
    kind = stored_kind(config)
    if kind is not None:
        return kind
    weight: Counter[str] = Counter()
    for entry in checkpoint.entries.values():
        weight[entry.dtype] += entry.nbytes
    most = max(weight, key=lambda kind: weight[kind], default="")
    return FLOATS.get(most, most.lower())


def quantize_checkpoint(
    source: Path,
    dest: Path,
    kind: str,
    dtype: str = "bfloat16",
    *,
    replace: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """Make the folder ``dest`` from the checkpoint ``source``: see above.

    ``dtype`` is the type of what is not quantized. ``dest`` appears whole or not at all; one
    that is there already is refused, or replaced on request. ``UsageError`` where the source is
    quantized already or bitsandbytes is missing.
    """
    check_kind(kind)
    dest = expanded(dest).absolute()
    check_dest(dest, replace=replace)
    if dest.resolve() == source.resolve() or source.resolve() in dest.parents:
        raise UsageError(f"{dest} is or lies in what is quantized", "name another folder")
    with building_checkpoint(dest, replace=replace) as new:
        fill_quantized(new, source, kind, dtype, None, on_progress)
        origin = Origin.of(source) or Origin("folder", str(source.absolute()))
        replaced(origin, sha256={}).write(new)  # its hashes are those of other bytes
    return dest


def fill_quantized(
    folder: Path,
    source: Path,
    kind: str,
    dtype: str,
    attention: AttentionConfig | None,
    on_progress: OnProgress | None = None,
) -> None:
    """Make ``folder``, which must not exist, from the checkpoint folder ``source``, with
    ``attention`` in place of its own if it is given; errors as ``quantize_checkpoint``."""
    config = ModelConfig.from_folder(source)
    if attention is not None:
        config = replaced(config, attention=attention)
    files = {name: source / name for name in SMALL_FILES if (source / name).is_file()}
    files.pop("config.json")
    checkpoint = Checkpoint.open(source)
    write_quantized(folder, config, checkpoint, files, kind, dtype, on_progress)


def write_quantized(
    folder: Path,
    config: ModelConfig,
    checkpoint: Checkpoint,
    files: Mapping[str, bytes | Path],
    kind: str,
    dtype: str,
    on_progress: OnProgress | None = None,
) -> None:
    """Make ``folder``, which must not exist, from the tensors of ``checkpoint``, of which one
    parameter at a time is in memory; ``files`` are those beside the weights."""
    from nazx_cli.quantization.quantize import load_library

    check_kind(kind)
    stored = stored_kind(config)
    if stored is not None:
        raise UsageError(
            f"the weights of {checkpoint.folder} are {stored} already",
            "name the model they were made from",
        )
    load_library()  # if it is missing, say so before anything is written
    check_tensors(config, checkpoint)
    tensors = [
        tensor for recipe in recipes(config) for tensor in _kept(checkpoint, recipe, kind, dtype)
    ]
    entry: dict[str, Any] = {"method": METHOD, "kind": kind, "compute_dtype": dtype}
    if kind == "nf4":
        entry["block_size"] = BLOCK
    fill_folder(folder, {**config.to_dict(), ENTRY: entry}, files)
    write_weights(folder, tensors, on_progress=on_progress)


def _kept(checkpoint: Checkpoint, recipe: Recipe, kind: str, dtype: str) -> Iterator[PendingTensor]:
    """What the new checkpoint has of one parameter; made when it is written."""
    if not recipe.is_block_matrix:
        for name, shape in recipe.sources:
            load = partial(_converted, checkpoint, name, dtype)
            yield PendingTensor(name, STORED_AS[dtype], shape, load)
        return
    # Scales are written before all matrices, so each matrix is quantized twice: that takes
    # seconds, keeping the first result would take the memory of the whole quantized model.
    for key, stored in stored_tensors(recipe, kind).items():
        load = partial(_quantized, checkpoint, recipe, kind, key)
        yield PendingTensor(stored.name, stored.dtype, stored.shape, load)


def _converted(checkpoint: Checkpoint, name: str, dtype: str) -> memoryview:
    import torch

    return tensor_bytes(checkpoint.read(name).to(getattr(torch, dtype)))


def _quantized(checkpoint: Checkpoint, recipe: Recipe, kind: str, key: str) -> memoryview:
    import torch

    from nazx_cli.quantization.quantize import quantize_matrix

    packed = quantize_matrix(recipe.read(checkpoint), kind, torch.device("cpu"))
    return tensor_bytes(packed[key])
