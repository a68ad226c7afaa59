"""Attention kinds, one class each, by the name that ``config.json`` gives them. A new kind is one
file and one line here."""

from __future__ import annotations

from nazx_cli.config import ModelConfig
from nazx_cli.context.ranks.sharing import BLOCK
from nazx_cli.errors import UsageError
from nazx_cli.kernels import KernelName
from nazx_cli.model.attention.base import AttentionKind
from nazx_cli.model.attention.inattention import InAttention
from nazx_cli.model.attention.star import StarFull, StarWindowed
from nazx_cli.model.attention.together import SplitFull, SplitWindowed
from nazx_cli.model.attention.windowed import Full, Windowed
from nazx_cli.model.decoder import Decoder
from nazx_cli.ranks import Group

_KINDS: dict[str, type[AttentionKind]] = {kind.name: kind for kind in (InAttention, Windowed, Full)}
_STAR: dict[str, type[StarWindowed]] = {kind.name: kind for kind in (StarWindowed, StarFull)}
_SPLIT: dict[str, type[SplitWindowed]] = {kind.name: kind for kind in (SplitWindowed, SplitFull)}


def attention_of(
    decoder: Decoder,
    kernel: KernelName | None = None,
    group: Group | None = None,
    block: int = BLOCK,
) -> AttentionKind:
    """The attention kind that the decoder's configuration names; ``kernel`` None lets it choose.

    Its contexts are held by all ranks of ``group``, of which this process is one; None: here. Of
    live tokens these read blocks of ``block``, unless the decoder is split among them.
    """
    name = decoder.config.attention.kind
    if group is not None and decoder.is_split:
        return _SPLIT[name](decoder, group)
    if group is not None and name in _STAR:
        return _STAR[name](decoder, group, block)
    return _KINDS[name](decoder, kernel, group)


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
