"""The families of decoders that run here, as data: one file for each kind of them.

A further one is a file with its entries, and its line below.
"""

from __future__ import annotations

from nazx_cli.families import gemma, gpt_neox, granite, llama, olmo2, phi3, qwen, starcoder2
from nazx_cli.families.base import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for module in (llama, qwen, gemma, phi3, granite, olmo2, starcoder2, gpt_neox)
    for family in module.FAMILIES
}
"""By the Hub's name of the model type."""

TEXT_PARTS = {"gemma3": "gemma3_text"}
"""Families of the text parts of models that see pictures too, by those models' types."""
