"""What every adapter's folder has, whatever its kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nazx_cli.checkpoint.atomic import building, explained, put_in_place
from nazx_cli.checkpoint.write import to_json, write_tensors
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.names import ADAPTER_CONFIG

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FILE = "adapter_model.safetensors"
CARD_FILE = "README.md"


def write_folder(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], card: str
) -> None:
    """Write an adapter so that ``folder`` appears whole or not at all; it replaces an older one."""
    with building(folder, keep_lock=False) as scratch:
        new = scratch / "new"
        with explained(folder):
            new.mkdir()
            (new / ADAPTER_CONFIG).write_bytes(to_json(config))
            (new / CARD_FILE).write_text(card, encoding="utf-8")
            write_tensors(new / WEIGHTS_FILE, tensors)
        put_in_place(new, folder, scratch)


def notes_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What NazX keeps in an adapter's config beside the keys that its kind has."""
    notes = config.get("nazx")
    return notes if isinstance(notes, dict) else {}


def check_finite(folder: Path, name: str, tensor: Tensor) -> None:
    """``ModelUnavailableError`` where the adapter's tensor ``name`` is not all finite numbers."""
    if not tensor.isfinite().all():
        raise unusable(folder / WEIGHTS_FILE, f"{name} holds values that are no numbers")


def unusable(path: Path, reason: str) -> ModelUnavailableError:
    """The error for an adapter's file that is broken or means what NazX cannot do."""
    return ModelUnavailableError(f"{path} cannot be used: {reason}", "take another adapter")


def unfit(name: str, reason: str) -> ModelUnavailableError:
    """The error for an adapter of another model."""
    return ModelUnavailableError(
        f"the adapter {name} does not fit this model: {reason}",
        "name the model that it was trained on with --model, or add --adapter none",
    )
