"""Turning checkpoints of the base families into NazX checkpoints, weights untouched.

Conversion changes ``config.json`` only: the tensors keep their names, types and bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from nazx_cli.checkpoint.atomic import explained
from nazx_cli.checkpoint.checkpoint import INDEX_FILE, SINGLE_FILE, Checkpoint
from nazx_cli.checkpoint.gguf import GgufFile
from nazx_cli.checkpoint.gguf_tokenizer import tokenizer_files
from nazx_cli.checkpoint.write import MAX_SHARD_BYTES, fill_folder, write_weights
from nazx_cli.config import AttentionConfig, ModelConfig
from nazx_cli.errors import ModelUnavailableError

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""What a checkpoint folder holds beside its weights."""

_PIECE = 4 << 20


def is_complete(folder: Path) -> bool:
    """Whether ``folder`` holds a whole checkpoint; looks at headers only."""
    if not all((folder / name).is_file() for name in ("config.json", "tokenizer.json")):
        return False
    try:
        Checkpoint.open(folder)
    except ModelUnavailableError:
        return False
    return True


DEFAULT_ATTENTION = AttentionConfig("windowed", local_window=2048, sink_tokens=4)
"""What a checkpoint of a base family is converted to where nothing else is asked for."""


def convert_folder(
    source: Path,
    dest: Path,
    attention: AttentionConfig | None,
    on_progress: Progress | None = None,
    *,
    may_link: bool = True,
) -> None:
    """Make ``dest``, a NazX checkpoint with the weights of the Hugging Face folder ``source``.

    Without ``attention`` a NazX checkpoint keeps its own. Weights are hard links where allowed
    and possible, else copies; ``dest`` must not exist.
    """
    config = ModelConfig.from_folder(source)
    if attention is not None or config.raw.get("model_type") != "nazx":
        config = replace(config, attention=attention or DEFAULT_ATTENTION)
    checkpoint = Checkpoint.open(source)
    small = {name: source / name for name in SMALL_FILES if (source / name).is_file()}
    if len(checkpoint.files) > 1 or not (source / SINGLE_FILE).is_file():
        small[INDEX_FILE] = source / INDEX_FILE
    small.pop("config.json")
    fill_folder(dest, validated(config.to_dict()), small)
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
    attention: AttentionConfig,
    on_progress: Progress | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    quantized_as: str = "F32",
) -> None:
    """Make ``dest``, a NazX checkpoint, from a GGUF file.

    Tensors are dequantized one at a time as they are written, into ``quantized_as``: F32, which
    is exact, or F16. ``dest`` must not exist.
    """
    file = GgufFile.open(source)
    config = replace(ModelConfig.from_dict(file.config(quantized_as)), attention=attention)
    fill_folder(dest, validated(config.to_dict()), tokenizer_files(file))
    write_weights(
        dest, file.tensors(quantized_as), max_shard_bytes=max_shard_bytes, on_progress=on_progress
    )


def validated(config: dict[str, Any]) -> dict[str, Any]:
    """``config``, after making sure that it can be read back."""
    ModelConfig.from_dict(config)
    return config


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
