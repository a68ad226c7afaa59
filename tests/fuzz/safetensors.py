"""Weights: headers, indexes of shards and whole files, damaged and cut short."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from fuzz.checkpoints import as_json, model_case, tiny_files
from fuzz.law import Case
from fuzz.mutate import mutated, mutated_json

_LEAVES = (
    *("F32", "F16", "BF16", "I8", "BOOL", "F8_E4M3", "F4", "X", [0, 0], [0, 4], [4, 0], [1 << 62]),
    *([0, 1 << 62], [[0], [4]], [-1, 4], [0.0, 4.0], {"dtype": "F32"}, [1] * 70, [0, 1 << 64]),
)
_PLACES = (
    *("../../etc/passwd", "/dev/zero", "model.safetensors", "x.bin", "a/b.safetensors", "", "."),
    *(".safetensors", "config.json", "model\0.safetensors", "nul.safetensors"),
)


def cases(rng: random.Random) -> Iterator[Case]:
    """Without end."""
    whole = tiny_files()["model.safetensors"]
    size = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    while True:
        kind = rng.choice(("header", "header", "bytes", "index"))
        if kind == "header":
            raw = as_json(mutated_json(rng, header, _LEAVES))
            length = len(raw) if rng.random() < 0.9 else rng.choice((0, 1 << 20, 1 << 62))
            changed = length.to_bytes(8, "little") + raw + data
            yield model_case(rng, kind, {"model.safetensors": changed})
        elif kind == "bytes":
            yield model_case(rng, kind, {"model.safetensors": mutated(rng, whole)})
        else:
            places = dict.fromkeys(header, "model-1.safetensors")
            index = mutated_json(rng, {"metadata": {}, "weight_map": places}, _PLACES)
            files = {"model.safetensors.index.json": as_json(index), "model-1.safetensors": whole}
            yield model_case(rng, kind, {"model.safetensors": None, **files})
