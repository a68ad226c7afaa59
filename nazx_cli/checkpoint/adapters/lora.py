"""LoRA adapters: low-rank additions to a checkpoint's matrices, in PEFT's LoRA format.

A folder with ``adapter_config.json`` and ``adapter_model.safetensors``. Each adapted matrix W
(out, in) becomes W + scale * B A when the checkpoint is read, before any stacking or
quantizing, so that an adapter does not care how the decoder holds its weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nazx_cli.checkpoint.adapters.folder import (
    WEIGHTS_FILE,
    check_finite,
    notes_of,
    unfit,
    unusable,
    write_folder,
)
from nazx_cli.checkpoint.checkpoint import Checkpoint, folder_bytes, read_header
from nazx_cli.checkpoint.quantized import stored_kind
from nazx_cli.checkpoint.recipes import Recipe, recipes
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.foreign import Fields, read_object
from nazx_cli.names import ADAPTER_CONFIG


class LoraPair(NamedTuple):
    """A (r, in) and B (out, r)."""

    down: Tensor
    up: Tensor


@dataclass(frozen=True)
class Adapter:
    """An adapter in memory.

    pairs   A and B of each module, by its name in the checkpoint (``model.layers.0.mlp.up_proj``)
    scales  what B A is multiplied by, module by module
    config  ``adapter_config.json`` as it is; ``nazx`` in it holds what PEFT has no place for:
            the base's name and hash, and the form of the answers
    """

    name: str
    pairs: Mapping[str, LoraPair]
    scales: Mapping[str, float]
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def notes(self) -> Mapping[str, Any]:
        """What NazX keeps in the config beside PEFT's own keys."""
        return notes_of(self.config)

    @property
    def is_reader(self) -> bool:
        """Whether it was trained to answer in the cited form of ``session.citation``."""
        return self.notes.get("answers") == "cited"

    @property
    def rank(self) -> int:
        """The greatest of its modules'."""
        return max(len(pair.down) for pair in self.pairs.values())

    @property
    def num_parameters(self) -> int:
        """Numbers that it adds."""
        return sum(pair.down.numel() + pair.up.numel() for pair in self.pairs.values())

    def check(self, config: ModelConfig) -> None:
        """``ModelUnavailableError`` where the adapter does not fit a base of this shape."""
        known = {
            name.removesuffix(".weight"): shape
            for recipe in block_matrices(config)
            for name, shape in recipe.sources
        }
        for module, pair in self.pairs.items():
            if module not in known:
                raise unfit(self.name, f"the model has no layer {module}")
            rows, columns = known[module]
            if (pair.up.shape[0], pair.down.shape[1]) != (rows, columns):
                raise unfit(
                    self.name,
                    f"{module} is {rows} by {columns} in the model, "
                    f"{pair.up.shape[0]} by {pair.down.shape[1]} in the adapter",
                )

    def delta(self, module: str, rows: slice | None = None) -> Tensor:
        """(out, in) float32: what is added to the matrix of one of its modules, or ``rows`` of
        it."""
        pair = self.pairs[module]
        up = pair.up if rows is None else pair.up[rows]
        return (up.float() @ pair.down.float()).mul_(self.scales[module])


class AdaptedCheckpoint(Checkpoint):
    """A checkpoint whose tensors come with an adapter merged, in float32 where it adds."""

    def __init__(self, checkpoint: Checkpoint, adapter: Adapter) -> None:
        super().__init__(checkpoint.folder, checkpoint.entries)
        self.adapter = adapter

    def read(self, name: str, rows: slice | None = None, *, stored_as: str | None = None) -> Tensor:
        tensor = super().read(name, rows, stored_as=stored_as)
        if (module := self._added(name)) is None:
            return tensor
        return tensor.float().add_(self.adapter.delta(module, rows))

    def read_into(self, name: str, out: Tensor) -> None:
        if self._added(name) is None:
            super().read_into(name, out)
        else:
            self._convert_into(name, out)

    def type_of(self, name: str) -> torch.dtype:
        return super().type_of(name) if self._added(name) is None else torch.float32

    def _added(self, name: str) -> str | None:
        """The module whose matrix ``name`` is, where the adapter adds to it."""
        module = name.removesuffix(".weight")
        return module if module != name and module in self.adapter.pairs else None


def adapted(checkpoint: Checkpoint, config: ModelConfig, adapter: Adapter) -> Checkpoint:
    """``checkpoint`` with ``adapter`` merged; ``ModelUnavailableError`` where it does not fit."""
    if stored_kind(config) is not None:
        raise ModelUnavailableError(
            f"the adapter {adapter.name} cannot be merged into weights that are kept quantized",
            "name the model that they were made from, with --quantize, or add --adapter none",
        )
    adapter.check(config)
    return AdaptedCheckpoint(checkpoint, adapter)


def block_matrices(config: ModelConfig) -> Iterator[Recipe]:
    """The matrices of the blocks: what an adapter may add to."""
    return (recipe for recipe in recipes(config) if recipe.is_block_matrix)


def row_order(recipe: Recipe) -> Tensor:
    """(out,) int64: which row of its sources, taken one after another, each row of the parameter
    is."""
    indices, at = [], 0
    for _, shape in recipe.sources:
        indices.append(torch.arange(at, at + shape[0]))
        at += shape[0]
    return recipe.arrange(indices) if recipe.arrange else indices[0]


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter folder.

    ``ModelUnavailableError`` where it is none, damaged, or of a kind that a merge into the
    weights cannot give.
    """
    config = _read_config(folder)
    path = folder / WEIGHTS_FILE
    checkpoint = Checkpoint(folder, read_header(path))
    halves: dict[str, dict[str, Tensor]] = {}
    for name in checkpoint.entries:
        found = _TENSOR.fullmatch(name)
        if found is None:
            raise unusable(path, f"it holds {name!r}, which is no part of a LoRA adapter")
        halves.setdefault(found.group(1), {})[found.group(2)] = checkpoint.read(name)
    pairs: dict[str, LoraPair] = {}
    scales: dict[str, float] = {}
    for module, half in halves.items():
        if half.keys() != {"A", "B"}:
            raise unusable(path, f"it holds only half of {module}")
        down, up = half["A"], half["B"]
        if down.dim() != 2 or up.dim() != 2 or not down.shape[0] == up.shape[1] > 0:
            raise unusable(path, f"the two halves of {module} do not fit together")
        pairs[module] = LoraPair(down, up)
        scales[module] = _scale(folder / ADAPTER_CONFIG, config, module, down.shape[0])
    if not pairs:
        raise unusable(path, "it is empty")
    return Adapter(folder.name, pairs, scales, config)


def read_notes(folder: Path) -> Mapping[str, Any]:
    """The notes of an adapter folder, without its weights; errors as ``read_adapter``."""
    return notes_of(_read_config(folder))


def write_adapter(
    folder: Path,
    pairs: Iterable[tuple[str, LoraPair]],
    *,
    alpha: float,
    base: str,
    notes: Mapping[str, Any],
    card: str,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write an adapter so that ``folder`` appears whole or not at all; it replaces an older one.

    All pairs have the same rank. ``base`` is the name that PEFT knows the model by.
    """
    tensors: dict[str, Tensor] = {}
    targets: set[str] = set()
    rank = 0
    for module, pair in pairs:
        rank = pair.down.shape[0]
        targets.add(module.rpartition(".")[2])
        tensors[f"{_PREFIX}{module}.lora_A.weight"] = pair.down.to(dtype).contiguous()
        tensors[f"{_PREFIX}{module}.lora_B.weight"] = pair.up.to(dtype).contiguous()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted(targets),
        "nazx": dict(notes),
    }
    write_folder(folder, config, tensors, card)


def describe_lora(folder: Path) -> dict[str, Any]:
    """What there is to know about an adapter, as a JSON object; errors as for reading it."""
    adapter = read_adapter(folder)
    ranks = sorted({pair.down.shape[0] for pair in adapter.pairs.values()})
    notes = adapter.notes
    return {
        "name": adapter.name,
        "kind": "adapter (LoRA)",
        "base": notes.get("base") or adapter.config.get("base_model_name_or_path"),
        "base_source": notes.get("base_source"),
        "rank": ranks[0] if len(ranks) == 1 else ranks,
        "matrices": len(adapter.pairs),
        "targets": " ".join(sorted({name.rpartition(".")[2] for name in adapter.pairs})),
        "parameters": adapter.num_parameters,
        "answers": notes.get("answers"),
        "path": str(folder),
        "bytes": folder_bytes(folder),
    }


def verify_lora(folder: Path) -> tuple[int, int]:
    """Read all of an adapter and hold every number of it to being finite; how many matrices it
    adds to, and by how many numbers."""
    adapter = read_adapter(folder)
    for module, pair in adapter.pairs.items():
        for half in pair:
            check_finite(folder, module, half)
    return len(adapter.pairs), adapter.num_parameters


_PREFIX = "base_model.model."
_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    try:
        config = read_object(path, "take another adapter")
    except FileNotFoundError:
        raise ModelUnavailableError(
            f"{folder} is no adapter: it has no {ADAPTER_CONFIG}",
            "name a folder with adapter_config.json and adapter_model.safetensors, or none",
        ) from None
    if config.get("peft_type") != "LORA":
        raise unusable(path, "it is not of the type LORA")
    for key, usual in _PLAIN.items():
        if config.get(key, usual) not in (usual, None, [], {}):
            raise unusable(path, f"{key} is {config[key]!r:.60}, which NazX cannot merge")
    return config


_PLAIN: dict[str, Any] = {
    "bias": "none",
    "fan_in_fan_out": False,
    "use_dora": False,
    "modules_to_save": None,
    "lora_bias": False,
    "layer_replication": None,
}
"""Settings of PEFT whose other values mean more than W + scale * B A."""


def _scale(path: Path, config: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) for rank-stabilized adapters (arXiv 2312.03732)."""
    fields = Fields(config, lambda what: unusable(path, what))
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise unusable(path, "alpha_pattern is no JSON object")
    for pattern in patterns:
        if _matches(path, pattern, module):
            fields, key = Fields(patterns, fields.complain), pattern
            break
    else:
        key = "lora_alpha"
    alpha = fields.number(key, 8.0, -1e6, 1e6)
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _matches(path: Path, pattern: str, module: str) -> bool:
    """Whether PEFT's ``pattern`` means ``module``; it is an expression that a stranger wrote, and
    without groups and with few repeats it is matched in no time."""
    if len(pattern) > 200 or re.search(r"[({]|([*+?].*){4}", pattern):
        raise unusable(path, f"its alpha_pattern {pattern[:60]!r} is no plain name")
    try:
        return re.fullmatch(rf"(.*\.)?({pattern})", module) is not None
    except re.error as error:
        raise unusable(path, f"its alpha_pattern {pattern!r}: {error}") from None
