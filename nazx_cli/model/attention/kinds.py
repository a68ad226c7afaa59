"""The table of attention kinds by the name that ``config.json`` gives them."""

from __future__ import annotations

from nazx_cli.model.attention.base import AttentionKind
from nazx_cli.model.attention.inattention import InAttention
from nazx_cli.model.attention.windowed import Full, Windowed
from nazx_cli.model.decoder import Decoder

_KINDS: dict[str, type[AttentionKind]] = {kind.name: kind for kind in (InAttention, Windowed, Full)}


def attention_of(decoder: Decoder) -> AttentionKind:
    """The attention kind that the decoder's configuration names."""
    return _KINDS[decoder.config.attention.kind](decoder)
