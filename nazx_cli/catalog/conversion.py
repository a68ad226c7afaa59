"""Any model that NazX can read, as a NazX checkpoint in a folder of the person's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.catalog.hub import snapshot_origin
from nazx_cli.catalog.resolve import resolve_model
from nazx_cli.catalog.verify import check_tensors
from nazx_cli.checkpoint.atomic import building, put_in_place
from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.checkpoint.convert import (
    DEFAULT_ATTENTION,
    SMALL_FILES,
    convert_folder,
    convert_gguf,
    validated,
)
from nazx_cli.checkpoint.families import Part, expected_shapes, parts
from nazx_cli.checkpoint.quantized_format import (
    ENTRY,
    is_quantized,
    quantization_entry,
    stored_kind,
    stored_tensors,
)
from nazx_cli.checkpoint.write import Origin, PendingTensor, fill_folder, write_weights
from nazx_cli.config import AttentionConfig, ModelConfig
from nazx_cli.errors import ModelUnavailableError, UsageError
from nazx_cli.quantization.cost import check_kind

if TYPE_CHECKING:
    import torch


Progress = Callable[[str, int, int], None]
"""Called with (stage, done, in all); the second two count bytes, or are 0 where unknown."""


def convert_model(
    source: str,
    dest: Path,
    attention: AttentionConfig | None,
    *,
    revision: str | None = None,
    offline: bool = False,
    replace: bool = False,
    on_progress: Progress,
) -> Path:
    """Make the folder ``dest`` from ``source``: a model by any of its names, or a GGUF file.

    Without ``attention`` a NazX checkpoint keeps its own and any other becomes windowed. ``dest``
    appears whole or not at all; one that is there already is refused, or replaced on request.
    """
    dest = dest.expanduser().absolute()
    check_dest(dest, replace)
    file = Path(source).expanduser()
    is_gguf = file.is_file() or file.suffix.lower() == ".gguf"
    if is_gguf and not file.is_file():
        raise UsageError(f"there is no file {source}", "check the path")
    if is_gguf and revision:
        raise UsageError(f"{source} is a file, which has no revisions", "leave --revision out")
    folder = (
        file
        if is_gguf
        else resolve_model(source, revision=revision, offline=offline, on_progress=on_progress)
    )
    if not is_gguf and (dest.resolve() == folder.resolve() or folder.resolve() in dest.parents):
        raise UsageError(f"{dest} is or lies in what is converted", "name another folder")

    def progress(done: int, total: int) -> None:
        on_progress("converting", done, total)

    with building(dest, keep_lock=False) as scratch:
        new = scratch / "new"
        if is_gguf:
            convert_gguf(file, new, attention or DEFAULT_ATTENTION, progress)
            origin = Origin("gguf", str(file.absolute()))
        else:
            _check_weights(folder)
            convert_folder(folder, new, attention, progress, may_link=False)
            origin = (
                snapshot_origin(folder, revision)
                or Origin.read(folder)
                or Origin("folder", str(folder.absolute()))
            )
        _check_weights(new)
        origin.write(new)
        check_dest(dest, replace)
        put_in_place(new, dest, scratch)
    return dest


def check_dest(dest: Path, replace: bool) -> None:
    """``UsageError`` where a checkpoint cannot be made at ``dest``, or not without ``replace``."""
    if not dest.exists() or (dest.is_dir() and not any(dest.iterdir())):
        return
    if not replace:
        raise UsageError(f"{dest} is there already", "name another folder, or add --force")
    if not (dest / "config.json").is_file():
        raise UsageError(
            f"{dest} is no checkpoint, and is not replaced by one", "name another folder"
        )


def _check_weights(folder: Path) -> None:
    """Hold the tensors to what the configuration asks for, from their headers."""
    try:
        check_tensors(ModelConfig.from_folder(folder), Checkpoint.open(folder))
    except ModelUnavailableError as error:
        raise ModelUnavailableError(error.message, "take a complete checkpoint") from None


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
    from nazx_cli.quantization.quantize import load_library

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
    load_library()  # if it is missing, say so before anything is written
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

        from nazx_cli.checkpoint.load import read_part
        from nazx_cli.quantization.quantize import quantize_matrix

        return _bytes(quantize_matrix(read_part(checkpoint, part), kind, torch.device("cpu"))[key])

    return load


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
