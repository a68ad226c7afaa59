"""Far memories, one class each, by the name that ``config.json`` gives them. A new kind is one file
and one line here."""

from __future__ import annotations

from nazx_cli.config import ModelConfig
from nazx_cli.model.far.base import FarMemory as FarMemory
from nazx_cli.model.far.inattention import FarInAttention
from nazx_cli.model.far.infini import FarInfini

_KINDS: dict[str, type[FarMemory]] = {kind.name: kind for kind in (FarInAttention, FarInfini)}


def far_memory_of(config: ModelConfig) -> FarMemory | None:
    """The far memory that a configuration names, without weights yet; None where it names none."""
    if config.attention.far == "none":
        return None
    return _KINDS[config.attention.far](config)
