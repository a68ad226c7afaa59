"""Far memories as adapters: what ``model.far`` adds to a model, in a folder of its own.

A folder with ``adapter_config.json``, whose ``peft_type`` is no type of PEFT's and whose entries
``far``, ``far_rank`` and so on are those of ``attention`` in ``config.json``; and with
``adapter_model.safetensors``, whose tensors are named as in a checkpoint that has the memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nazx_cli.checkpoint.adapters.folder import (
    WEIGHTS_FILE,
    check_finite,
    notes_of,
    unfit,
    unusable,
    write_folder,
)
from nazx_cli.checkpoint.checkpoint import Checkpoint, folder_bytes, read_header
from nazx_cli.checkpoint.recipes import far_recipes
from nazx_cli.config import AttentionConfig, ModelConfig, with_memory
from nazx_cli.foreign import read_object
from nazx_cli.model.decoder import Decoder
from nazx_cli.model.far import FarMemory, far_memory_of
from nazx_cli.names import ADAPTER_CONFIG, FAR_ADAPTER


@dataclass(frozen=True)
class FarAdapter:
    """A far memory in its folder: ``adapter_config.json`` and the file of tensors."""

    name: str
    config: Mapping[str, Any]
    weights: Checkpoint

    @property
    def notes(self) -> Mapping[str, Any]:
        """What NazX keeps of where it comes from."""
        return notes_of(self.config)

    def extended(self, config: ModelConfig) -> ModelConfig:
        """The configuration of a model of ``config`` that has the memory.

        ``ModelUnavailableError`` where it does not fit such a model.
        """
        if config.attention.kind != "windowed":
            raise unfit(self.name, "it has no window that a far memory could be beside")
        found = with_memory(config, self.config)
        for recipe in far_recipes(found):
            for name, shape in recipe.sources:
                entry = self.weights.entries.get(name)
                if entry is None or entry.shape != shape:
                    held = "no such tensor" if entry is None else f"{entry.shape}"
                    raise unfit(self.name, f"{name} would be {shape}; it holds {held}")
        return found


def read_far_adapter(folder: Path) -> FarAdapter:
    """Open a far memory's folder.

    ``ModelUnavailableError`` where it is none, or damaged.
    """
    path = folder / ADAPTER_CONFIG
    config = read_object(path, "take another adapter")
    if config.get("peft_type") != FAR_ADAPTER:
        raise unusable(path, f"it is not of the type {FAR_ADAPTER}")
    if config.get("far", "none") == "none":
        raise unusable(path, "it names no far memory")
    return FarAdapter(folder.name, config, Checkpoint(folder, read_header(folder / WEIGHTS_FILE)))


def attach_far(decoder: Decoder, adapter: FarAdapter) -> FarMemory:
    """Give ``decoder`` the memory, which is returned, in place of any that it has; errors as
    ``extended``."""
    config = adapter.extended(decoder.config)
    memory = far_memory_of(config)
    assert memory is not None
    for recipe in far_recipes(config):
        tensor = recipe.read(adapter.weights).to(decoder.device, torch.float32, copy=True)
        setattr(memory, recipe.parameter.removeprefix("far."), nn.Parameter(tensor, False))
    memory.prepare(decoder.embed)
    decoder.config, decoder.far = config, memory
    return memory


def detach_far(decoder: Decoder) -> None:
    """Take out the memory that ``decoder`` has, if it has one."""
    decoder.config, decoder.far = with_memory(decoder.config, {}), None


def write_far_adapter(
    folder: Path,
    attention: AttentionConfig,
    memory: nn.Module,
    *,
    base: str,
    notes: Mapping[str, Any],
    card: str,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write a memory so that ``folder`` appears whole or not at all; it replaces an older one.

    ``attention`` is that of the model with it, ``base`` the name of the model without it.
    """
    kept = {key: value for key, value in attention.to_dict().items() if key.startswith("far")}
    config = {
        "peft_type": FAR_ADAPTER,
        "base_model_name_or_path": base,
        **kept,
        "nazx": dict(notes),
    }
    tensors = {
        f"far.{name}": tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in memory.named_parameters()
    }
    write_folder(folder, config, tensors, card)


def describe_far(folder: Path) -> dict[str, Any]:
    """What there is to know about a far memory, as a JSON object; errors as for reading it."""
    adapter = read_far_adapter(folder)
    entries = adapter.weights.entries
    kept = {key: value for key, value in adapter.config.items() if key.startswith("far")}
    return {
        "name": adapter.name,
        "kind": "adapter (far memory)",
        "base": adapter.notes.get("base") or adapter.config.get("base_model_name_or_path"),
        "base_source": adapter.notes.get("base_source"),
        **kept,
        "state_bytes": adapter.notes.get("state_bytes", 0),
        "parameters": sum(math.prod(entry.shape) for entry in entries.values()),
        "path": str(folder),
        "bytes": folder_bytes(folder),
    }


def verify_far(folder: Path) -> tuple[int, int]:
    """Read all of a far memory and hold every number to being finite; how many tensors it has, and
    how many numbers they are."""
    adapter = read_far_adapter(folder)
    count = 0
    for name in adapter.weights.entries:
        tensor = adapter.weights.read(name)
        check_finite(folder, name, tensor)
        count += tensor.numel()
    return len(adapter.weights.entries), count
