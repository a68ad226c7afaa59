"""Writing a decoder whose own weights were tuned as a checkpoint, under its family's names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from nazx_cli.checkpoint.adapters.lora import row_order
from nazx_cli.checkpoint.recipes import recipes
from nazx_cli.checkpoint.write import ORIGIN_FILE, write_checkpoint
from nazx_cli.model.decoder import Decoder


def write_full(folder: Path, decoder: Decoder, base: Path) -> None:
    """Write ``decoder`` with the configuration and the tokenizer of the checkpoint ``base``."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    left = {"config.json", ORIGIN_FILE}
    files = {
        path.name: path
        for path in base.iterdir()
        if path.suffix in (".json", ".jinja", ".txt")
        and path.name not in left
        and not path.name.endswith(".index.json")
    }
    write_checkpoint(folder, config, dict(tensors(decoder)), files)


def tensors(decoder: Decoder) -> Iterator[tuple[str, Tensor]]:
    """The checkpoint's tensors of the decoder's parameters: stacked ones taken apart."""
    for recipe in recipes(decoder.config):
        parameter = decoder.get_parameter(recipe.parameter).detach()
        if recipe.offset:
            parameter = (parameter - recipe.offset).to(decoder.dtype)
        rows = parameter[torch.argsort(row_order(recipe)).to(parameter.device)]
        at = 0
        for name, shape in recipe.sources:
            yield name, rows[at : at + shape[0]]
            at += shape[0]
