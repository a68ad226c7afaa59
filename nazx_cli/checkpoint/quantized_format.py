"""How a quantized checkpoint is kept on disk; needs no torch.

``config.json`` has an entry

    "quantization": {"method": "bitsandbytes", "kind": "int8" | "nf4", "compute_dtype": "bfloat16"}

(for nf4 also ``"block_size": 64``). Embeddings, output head, norms and biases are stored under
their usual names, in ``compute_dtype``. In place of each matrix (out, in) of a block's linear
layers, under the name N of that matrix, there is

    int8   N        I8   (out, in)                     w = N * N.SCB / 127
           N.SCB    F32  (out,)
    nf4    N        U8   (ceil(out * in / 2), 1)       two codes a byte, the first in the high half
           N.absmax F32  (ceil(out * in / 64),)        w = table[code] * absmax of its 64 weights

These are bitsandbytes' own suffixes and orders. Query, key and value are one matrix: rows
q, k, v under ``...self_attn.qkv_proj.weight`` (Llama) or under the usual
``...attention.query_key_value.weight`` (GPT-NeoX; its rows are q, k, v too, not interleaved by
head as in the unquantized file).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nazx_cli.checkpoint.families import Part, Shape, parts
from nazx_cli.config import ConfigError, ModelConfig
from nazx_cli.errors import UsageError
from nazx_cli.quantization.cost import BLOCK, KINDS, check_kind

METHOD = "bitsandbytes"
ENTRY = "quantization"


@dataclass(frozen=True)
class Stored:
    """One tensor of a quantized matrix: its name in the file, type and shape."""

    name: str
    dtype: str
    shape: Shape


def stored_kind(config: ModelConfig) -> str | None:
    """``int8`` or ``nf4`` where the checkpoint of ``config`` is quantized, else None.

    ``ConfigError`` for an entry that this version does not know.
    """
    entry = config.raw.get(ENTRY)
    if entry is None:
        return None
    known = isinstance(entry, Mapping) and entry.get("method") == METHOD
    if not known or entry.get("kind") not in KINDS or entry.get("block_size", BLOCK) != BLOCK:
        raise ConfigError(
            f"config.json: the weights are quantized in a way NazX does not know: {entry!r:.120}",
            f"NazX reads {METHOD} of kind {' or '.join(KINDS)}; quantize the original again",
        )
    return str(entry["kind"])


def agreed_kind(config: ModelConfig, wanted: str | None) -> str | None:
    """How the weights are to be held: as ``wanted``, or as the checkpoint has them already.

    ``UsageError`` for an unknown kind, or where the checkpoint is of another kind.
    """
    stored = stored_kind(config)
    if wanted is None:
        return stored
    check_kind(wanted)
    if stored not in (None, wanted):
        raise UsageError(
            f"the weights of this model are {stored} already, they cannot become {wanted}",
            f"leave --quantize out, or use the model that they were made from as {wanted}",
        )
    return wanted


def quantization_entry(kind: str, compute_dtype: str) -> dict[str, Any]:
    """The entry for ``config.json``."""
    entry: dict[str, Any] = {"method": METHOD, "kind": kind, "compute_dtype": compute_dtype}
    return {**entry, "block_size": BLOCK} if kind == "nf4" else entry


def is_quantized(part: Part) -> bool:
    """Whether this parameter is one of those that are quantized: a block's matrices."""
    return part.parameter.startswith("blocks.") and len(part.sources[0][1]) == 2


def matrix_shape(part: Part) -> tuple[int, int]:
    """(out, in) of a part that is quantized."""
    return sum(shape[0] for _, shape in part.sources), part.sources[0][1][1]


def stored_tensors(part: Part, kind: str) -> dict[str, Stored]:
    """What is kept of a quantized part, by the names that ``quantize`` gives its tensors."""
    name = part.sources[0][0]
    if len(part.sources) > 1:
        name = name.replace(".q_proj.", ".qkv_proj.")
    rows, columns = matrix_shape(part)
    if kind == "int8":
        return {
            "weight": Stored(name, "I8", (rows, columns)),
            "SCB": Stored(f"{name}.SCB", "F32", (rows,)),
        }
    count = rows * columns
    return {
        "weight": Stored(name, "U8", (-(-count // 2), 1)),
        "absmax": Stored(f"{name}.absmax", "F32", (-(-count // BLOCK),)),
    }


def expected_tensors(config: ModelConfig, kind: str) -> tuple[dict[str, Shape], dict[str, str]]:
    """Shapes of all tensors of a quantized checkpoint, and the types of the quantized ones."""
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, str] = {}
    for part in parts(config):
        if not is_quantized(part):
            shapes.update(part.sources)
            continue
        for stored in stored_tensors(part, kind).values():
            shapes[stored.name] = stored.shape
            dtypes[stored.name] = stored.dtype
    return shapes, dtypes
