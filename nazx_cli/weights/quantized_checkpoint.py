"""Making a quantized checkpoint, one matrix in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.config import ModelConfig
from nazx_cli.errors import UsageError
from nazx_cli.weights.atomic import building, put_in_place
from nazx_cli.weights.checkpoint import Checkpoint
from nazx_cli.weights.conversion import check_dest
from nazx_cli.weights.convert import SMALL_FILES, validated
from nazx_cli.weights.families import Part, expected_shapes, parts
from nazx_cli.weights.hub import snapshot_origin
from nazx_cli.weights.origin import Origin
from nazx_cli.weights.quantize_cost import check_kind
from nazx_cli.weights.quantized_format import (
    ENTRY,
    is_quantized,
    quantization_entry,
    stored_kind,
    stored_tensors,
)
from nazx_cli.weights.write import PendingTensor, fill_folder, write_weights

if TYPE_CHECKING:
    import torch

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def quantize_checkpoint(
    source: Path,
    dest: Path,
    kind: str,
    dtype: str = "bfloat16",
    *,
    replace: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make the folder ``dest`` from the checkpoint ``source``: see ``quantized_format``.

    ``dtype`` is the type of what is not quantized. ``dest`` appears whole or not at all; one
    that is there already is refused, or replaced on request. ``UsageError`` where the source is
    quantized already or bitsandbytes is missing.
    """
    from nazx_cli.weights.quantize import library

    check_kind(kind)
    dest = dest.expanduser().absolute()
    check_dest(dest, replace)
    if dest.resolve() == source.resolve() or source.resolve() in dest.parents:
        raise UsageError(f"{dest} is or lies in what is quantized", "name another folder")
    config = ModelConfig.from_folder(source)
    stored = stored_kind(config)
    if stored is not None:
        raise UsageError(
            f"the weights of {source} are {stored} already", "name the model they were made from"
        )
    library()  # if it is missing, say so before anything is written
    checkpoint = Checkpoint.open(source)
    checkpoint.check(expected_shapes(config))
    tensors = [tensor for part in parts(config) for tensor in _kept(checkpoint, part, kind, dtype)]
    files = {name: source / name for name in SMALL_FILES if (source / name).is_file()}
    files.pop("config.json")
    entries = {**config.to_dict(), ENTRY: quantization_entry(kind, dtype)}
    with building(dest, keep_lock=False) as scratch:
        new = scratch / "new"
        fill_folder(new, validated(entries), files)
        write_weights(new, tensors, on_progress=on_progress)
        _origin(source).write(new)
        check_dest(dest, replace)
        put_in_place(new, dest, scratch)
    return dest


def _origin(source: Path) -> Origin:
    known = snapshot_origin(source) or Origin.read(source)
    # Its hashes are those of other bytes.
    return changed(known, sha256={}) if known else Origin("folder", str(source.absolute()))


def _kept(checkpoint: Checkpoint, part: Part, kind: str, dtype: str) -> Iterator[PendingTensor]:
    """What the new checkpoint has of one parameter; made when it is written."""
    if not is_quantized(part):
        for name, shape in part.sources:
            yield PendingTensor(name, DTYPES[dtype], shape, _converted(checkpoint, name, dtype))
        return
    # Scales are written before all matrices, so each matrix is quantized twice: that takes
    # seconds, keeping the first result would take the memory of the whole quantized model.
    for key, stored in stored_tensors(part, kind).items():
        load = _quantized(checkpoint, part, kind, key)
        yield PendingTensor(stored.name, stored.dtype, stored.shape, load)


def _converted(checkpoint: Checkpoint, name: str, dtype: str) -> Callable[[], memoryview]:
    def load() -> memoryview:
        import torch

        return _bytes(checkpoint.read(name).to(getattr(torch, dtype)))

    return load


def _quantized(checkpoint: Checkpoint, part: Part, kind: str, key: str) -> Callable[[], memoryview]:
    def load() -> memoryview:
        import torch

        from nazx_cli.weights.load import read_part
        from nazx_cli.weights.quantize import quantize_matrix

        return _bytes(quantize_matrix(read_part(checkpoint, part), kind, torch.device("cpu"))[key])

    return load


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
