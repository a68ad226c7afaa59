"""Loaded tiny models with quantized weights."""

from __future__ import annotations

from functools import cache

from checkpoints import nazx, write_checkpoint
from models import BASES, FULL, INATTENTION, WINDOWED, checkpoint, new_folder

from nazx_cli.engine.language_model import LanguageModel, load_model

WIDE = {"hidden_size": 64, "intermediate_size": 128}  # sizes that the fused kernels take


@cache
def quantized(
    base: str, attention: str, kind: str, dtype: str, wide: bool = False
) -> LanguageModel:
    if not wide:
        return load_model(checkpoint(base, attention)[0], dtype=dtype, quantize=kind)
    kinds = {"inattention": INATTENTION, "windowed": WINDOWED, "full": FULL}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = nazx(BASES[base], kinds[attention], **WIDE, **heads)
    folder = write_checkpoint(new_folder(), config)
    return load_model(folder, dtype=dtype, quantize=kind)
