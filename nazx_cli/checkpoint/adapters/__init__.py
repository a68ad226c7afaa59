"""Adapters: what is added to a checkpoint, in folders of their own; one file a kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nazx_cli.errors import ModelUnavailableError
from nazx_cli.foreign import read_object
from nazx_cli.names import ADAPTER_CONFIG, FAR_ADAPTER

if TYPE_CHECKING:
    from nazx_cli.config import ModelConfig


def is_far_adapter(folder: Path) -> bool:
    """Whether the adapter in ``folder`` is a far memory; False too where that cannot be told."""
    try:
        return read_object(folder / ADAPTER_CONFIG, "").get("peft_type") == FAR_ADAPTER
    except (OSError, ModelUnavailableError):
        return False


def with_adapter(config: ModelConfig, folder: Path) -> ModelConfig:
    """``config`` with what the adapter in ``folder`` adds to it, without its weights; errors as
    for reading it."""
    from nazx_cli.config import with_memory

    if not is_far_adapter(folder):
        return config
    return with_memory(config, read_object(folder / ADAPTER_CONFIG, "take another adapter"))


def describe_adapter(folder: Path) -> dict[str, Any]:
    """What there is to know about an adapter, as a JSON object; errors as for reading it."""
    from nazx_cli.checkpoint.adapters.far import describe_far
    from nazx_cli.checkpoint.adapters.lora import describe_lora

    return describe_far(folder) if is_far_adapter(folder) else describe_lora(folder)


def verify_adapter(folder: Path) -> tuple[int, int]:
    """Read all of an adapter and hold every number of it to being finite; how many matrices it
    adds, and how many numbers they are."""
    from nazx_cli.checkpoint.adapters.far import verify_far
    from nazx_cli.checkpoint.adapters.lora import verify_lora

    return verify_far(folder) if is_far_adapter(folder) else verify_lora(folder)
