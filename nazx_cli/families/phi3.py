"""Phi-3, Phi-3.5 and Phi-4-mini: fused projections, partial rotation, longrope."""

from __future__ import annotations

from nazx_cli.families.base import Family, Gguf, GgufMetadata, Names, sliding
from nazx_cli.families.rope import RopeKeys

# Files of old say "yarn" for what was always longrope.
_ROPE = RopeKeys(share_key="partial_rotary_factor", older_types={"yarn": "longrope"})


def _keys(file: GgufMetadata) -> dict[str, object]:
    return {"sliding_window": int(file.number("attention.sliding_window", 0.0)) or None}


FAMILIES = (
    Family(
        "phi3",
        Names(qkv=("self_attn.qkv_proj",), gate_up=("mlp.gate_up_proj",)),
        layers=sliding,
        rope=_ROPE,
        eps=("rms_norm_eps", 1e-5),
        gguf=Gguf("phi3", _keys),
    ),
)
