"""Turning checkpoints of the base families and GGUF files into NazX checkpoints.

Of a checkpoint only ``config.json`` changes: the tensors keep their names, types and bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace as replaced
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.checkpoint.atomic import explained
from nazx_cli.checkpoint.checkpoint import (
    INDEX_FILE,
    SINGLE_FILE,
    SMALL_FILES,
    Checkpoint,
    TensorEntry,
)
from nazx_cli.checkpoint.gguf import GgufFile
from nazx_cli.checkpoint.gguf_tokenizer import tokenizer_files
from nazx_cli.checkpoint.quantized import check_tensors, fill_quantized, write_quantized
from nazx_cli.checkpoint.verify import check_tokenizer
from nazx_cli.checkpoint.write import (
    MAX_SHARD_BYTES,
    Origin,
    PendingTensor,
    building_checkpoint,
    check_dest,
    fill_folder,
    write_weights,
)
from nazx_cli.config import AttentionConfig, ModelConfig, as_trained
from nazx_cli.errors import ModelUnavailableError, UsageError
from nazx_cli.foreign import FETCH_AGAIN, expanded
from nazx_cli.names import OnProgress

if TYPE_CHECKING:
    import torch

_PIECE = 4 << 20
_KEPT_AS = "bfloat16"  # what of a model is not quantized


def convert_model(
    source: Path,
    dest: Path,
    attention: AttentionConfig | None,
    *,
    revision: str | None = None,
    quantize: str | None = None,
    dequantized: str = "F32",
    replace: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """Make the folder ``dest`` from ``source``, a checkpoint folder or a GGUF file.

    Without ``attention`` a NazX checkpoint keeps its own and any other becomes windowed. A window
    of 0, or one that nobody asked for, is as long as the model was trained for. ``dest`` appears
    whole or not at all; one that is there already is refused, or replaced on request.
    ``revision`` is what the source was asked for by, for the note on where it came from;
    ``dequantized`` what quantized tensors of a GGUF file become, F32 or BF16. With
    ``quantize`` (int8 or nf4) the matrices of the blocks are kept so, and the rest in bfloat16;
    errors then as ``quantize_checkpoint``.
    """
    dest = expanded(dest).absolute()
    check_dest(dest, replace=replace)
    if source.is_dir() and (dest.resolve() == source.resolve() or source.resolve() in dest.parents):
        raise UsageError(f"{dest} is or lies in what is converted", "name another folder")
    with building_checkpoint(dest, replace=replace) as new:
        if source.is_file():
            convert_gguf(source, new, attention, on_progress, quantize, dequantized)
            _check_made_tokenizer(new, source)
            origin = Origin("gguf", str(source.absolute()))
        else:
            _check_weights(source)
            if (source / "tokenizer.json").is_file():
                check_tokenizer(source)
            origin = Origin.of(source, revision) or Origin("folder", str(source.absolute()))
            if quantize is None:
                convert_folder(source, new, attention, on_progress, may_link=False)
            else:
                chosen = _attention(ModelConfig.from_folder(source), attention)
                fill_quantized(new, source, quantize, _KEPT_AS, chosen, on_progress)
                origin = replaced(origin, sha256={})  # its hashes are those of other bytes
        _check_weights(new)
        origin.write(new)
    return dest


def _check_weights(folder: Path) -> None:
    """Hold the tensors to what the configuration asks for, from their headers."""
    try:
        check_tensors(ModelConfig.from_folder(folder), Checkpoint.open(folder))
    except ModelUnavailableError as error:
        raise ModelUnavailableError(error.message, "take a complete checkpoint") from None


def _check_made_tokenizer(folder: Path, source: Path) -> None:
    """Hold the tokenizer that was made from the GGUF file ``source`` to being usable."""
    try:
        check_tokenizer(folder)
    except ModelUnavailableError as error:
        reason = error.message.replace(f"{folder}/", "")
        raise ModelUnavailableError(f"{source} is damaged: {reason}", FETCH_AGAIN) from None


def convert_folder(
    source: Path,
    dest: Path,
    attention: AttentionConfig | None,
    on_progress: OnProgress | None = None,
    *,
    may_link: bool = True,
) -> None:
    """Make ``dest``, a NazX checkpoint with the weights of the Hugging Face folder ``source``.

    Without ``attention`` a NazX checkpoint keeps its own. Weights are hard links where allowed
    and possible, else copies; ``dest`` must not exist.
    """
    config = ModelConfig.from_folder(source)
    config = replaced(config, attention=_attention(config, attention))
    checkpoint = Checkpoint.open(source)
    small = {name: source / name for name in SMALL_FILES if (source / name).is_file()}
    if len(checkpoint.files) > 1 or not (source / SINGLE_FILE).is_file():
        small[INDEX_FILE] = source / INDEX_FILE
    small.pop("config.json")
    fill_folder(dest, config.to_dict(), small)
    total = sum(path.stat().st_size for path in checkpoint.files)
    done = 0
    for path in checkpoint.files:
        with explained(dest):
            for size in _transfer(path.resolve(), dest / path.name, may_link):
                done += size
                if on_progress:
                    on_progress(done, total)


def convert_gguf(
    source: Path,
    dest: Path,
    attention: AttentionConfig | None,
    on_progress: OnProgress | None = None,
    quantize: str | None = None,
    dequantized: str = "F32",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Make ``dest``, a NazX checkpoint, from a GGUF file.

    Tensors are dequantized one at a time as they are written, to F32 or BF16, and quantized anew
    with ``quantize``. ``dest`` must not exist.
    """
    file = GgufFile.open(source, "F32" if quantize else dequantized)
    config = ModelConfig.from_dict(file.config())
    config = replaced(config, attention=_attention(config, attention))
    tensors, files = file.tensors(), tokenizer_files(file)
    if quantize is not None:
        pending = PendingCheckpoint(source, tensors)
        write_quantized(dest, config, pending, files, quantize, _KEPT_AS, on_progress)
        return
    fill_folder(dest, config.to_dict(), files)
    write_weights(dest, tensors, max_shard_bytes=max_shard_bytes, on_progress=on_progress)


class PendingCheckpoint(Checkpoint):
    """Tensors that are made whenever they are read, such as those of a GGUF file."""

    def __init__(self, source: Path, tensors: Sequence[PendingTensor]) -> None:
        entries = {t.name: TensorEntry(source, t.dtype, t.shape, 0, t.nbytes) for t in tensors}
        super().__init__(source, entries)
        self._pending = {tensor.name: tensor for tensor in tensors}

    def read(
        self, name: str, rows: slice | None = None, *, stored_as: str | None = None
    ) -> torch.Tensor:
        import torch

        tensor = self._pending[name]
        dtype = self.entries[name].torch_type
        data = tensor.load()
        writable = bytearray(data) if data.readonly else data
        whole = torch.frombuffer(writable, dtype=dtype).view(tensor.shape)
        return whole if rows is None else whole[rows]

    def read_into(self, name: str, out: torch.Tensor) -> None:
        out.copy_(self.read(name))


def _attention(config: ModelConfig, wanted: AttentionConfig | None) -> AttentionConfig:
    """What a checkpoint is converted to: what is wanted, its own if it is one of NazX's, else
    windowed; see ``convert_model``."""
    if wanted is None and config.raw.get("model_type") == "nazx":
        return config.attention
    if wanted is None:
        return as_trained(config.max_positions)
    if wanted.kind == "windowed" and not wanted.local_window:
        return as_trained(config.max_positions, wanted.sink_tokens)
    return wanted


def _transfer(source: Path, dest: Path, may_link: bool) -> Iterator[int]:
    """Give ``source`` a second name, or copy it; yields bytes as they are dealt with."""
    if may_link:
        try:
            os.link(source, dest)
        except OSError:  # another file system, or one without hard links
            pass
        else:
            yield source.stat().st_size
            return
    with source.open("rb") as old, dest.open("wb") as new:
        while piece := old.read(_PIECE):
            new.write(piece)
            yield len(piece)
