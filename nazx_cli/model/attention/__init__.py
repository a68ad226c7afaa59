"""Attention kinds, one class each, by the name that ``config.json`` gives them. A new kind is one
file and one line here."""

from __future__ import annotations

from nazx_cli.config import ModelConfig
from nazx_cli.errors import UsageError
from nazx_cli.kernels import KernelName
from nazx_cli.model.attention.base import AttentionKind
from nazx_cli.model.attention.inattention import InAttention
from nazx_cli.model.attention.windowed import Full, Windowed
from nazx_cli.model.decoder import Decoder
from nazx_cli.ranks import Group

_KINDS: dict[str, type[AttentionKind]] = {kind.name: kind for kind in (InAttention, Windowed, Full)}


def attention_of(
    decoder: Decoder, kernel: KernelName | None = None, group: Group | None = None
) -> AttentionKind:
    """The attention kind that the decoder's configuration names; ``kernel`` None lets it choose.

    Its contexts are held by all ranks of ``group``, of which this process is one; None: here.
    """
    return _KINDS[decoder.config.attention.kind](decoder, kernel, group)


def layouts_of(config: ModelConfig) -> tuple[str, ...]:
    """Memory layouts that a model of this configuration can use, the default first."""
    return _KINDS[config.attention.kind].layouts_for(config)


def check_layout(config: ModelConfig, layout: str) -> str:
    """``layout`` if the model can use it, else ``UsageError``."""
    if layout not in layouts_of(config):
        raise UsageError(
            f"this model has no memory layout {layout!r}",
            f"choose auto or one of {', '.join(layouts_of(config))}",
        )
    return layout
