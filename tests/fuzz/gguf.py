"""GGUF files: metadata of every type in every place, counts and offsets, and damaged bytes."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Any

from fuzz.law import Case
from fuzz.mutate import mutated

_UINT32, _FLOAT, _BOOL, _TEXT, _LIST = 4, 6, 7, 8, 9
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdefgh", "Ġ", "ab"]
_SOUND: dict[str, tuple[int, Any]] = {
    "general.architecture": (_TEXT, "llama"),
    "general.alignment": (_UINT32, 32),
    "llama.block_count": (_UINT32, 1),
    "llama.context_length": (_UINT32, 64),
    "llama.embedding_length": (_UINT32, 32),
    "llama.feed_forward_length": (_UINT32, 32),
    "llama.attention.head_count": (_UINT32, 2),
    "llama.attention.head_count_kv": (_UINT32, 1),
    "llama.attention.layer_norm_rms_epsilon": (_FLOAT, 1e-5),
    "llama.rope.freq_base": (_FLOAT, 10000.0),
    "llama.rope.scaling.type": (_TEXT, "none"),
    "tokenizer.ggml.model": (_TEXT, "gpt2"),
    "tokenizer.ggml.pre": (_TEXT, "smollm"),
    "tokenizer.ggml.tokens": (_LIST, (_TEXT, _WORDS)),
    "tokenizer.ggml.token_type": (_LIST, (5, [3, 3, 3] + [1] * 10)),
    "tokenizer.ggml.merges": (_LIST, (_TEXT, ["a b"])),
    "tokenizer.ggml.bos_token_id": (_UINT32, 1),
    "tokenizer.ggml.eos_token_id": (_UINT32, 2),
    "tokenizer.ggml.add_bos_token": (_BOOL, False),
    "tokenizer.chat_template": (_TEXT, "{% for m in messages %}{{ m.content }}{% endfor %}"),
}
_PRES = ("llama-bpe", "qwen2", "gpt-4o", "tekken", "refact", "dbrx", "olmo", "default")
_ARCHITECTURES = ("qwen2", "qwen3", "gemma2", "gemma3", "phi3", "granite", "olmo2", "smollm3")
_VALUES: tuple[tuple[int, Any], ...] = (
    *((_TEXT, text) for text in ("", "x", "\x1b[2J", "\u202e", "linear", "yarn", "gptneox", "{{")),
    *((_UINT32, number) for number in (0, 1, 3, 7, 4096, (1 << 32) - 1)),
    *((11, number) for number in (-1, -(1 << 63), (1 << 63) - 1)),
    *((_FLOAT, number) for number in (0.0, -1.0, 1e-5, 1e30, float("nan"), float("inf"))),
    *((_BOOL, True), (10, (1 << 64) - 1), (_LIST, (_UINT32, [])), (_LIST, (_UINT32, [1, 2]))),
    *((_LIST, (_TEXT, ["a", "a"])), (_LIST, (_TEXT, ["a b c"])), (_LIST, (_FLOAT, [0.5] * 13))),
    (_LIST, (_LIST, [(_UINT32, [1]), (_TEXT, ["x"])])),
)
_TOKENS = (b"GGUF", b"llama.", b"blk.0.", b".weight", *(struct.pack("<Q", 1 << n) for n in (8, 60)))


def cases(rng: random.Random) -> Iterator[Case]:
    """Without end."""
    while True:
        entries = _variant(rng)
        for _ in range(rng.choice((0, 1, 1, 2))):
            key = rng.choice(list(entries))
            entries[key] = rng.choice((*_VALUES, *_SOUND.values()))
            if rng.random() < 0.2:
                del entries[key]
        data = _file(rng, entries, _tensors(rng))
        if rng.random() < 0.5:
            data = mutated(rng, data, _TOKENS)
        argv = ("convert", "m.gguf", "out")
        yield Case("gguf", argv, {"m.gguf": data}, may_change=("out", ".out.lock"))


def _variant(rng: random.Random) -> dict[str, tuple[int, Any]]:
    """The sound entries, or those of another kind of tokenizer or family."""
    entries = {**_SOUND, "tokenizer.ggml.pre": (_TEXT, rng.choice(("smollm", *_PRES)))}
    if rng.random() < 0.4:
        scores = [-float(number) for number in range(len(_WORDS))]
        entries["tokenizer.ggml.model"] = (_TEXT, "llama")
        entries["tokenizer.ggml.scores"] = (_LIST, (_FLOAT, scores))
    if rng.random() < 0.4:
        name = rng.choice(_ARCHITECTURES)
        entries["general.architecture"] = (_TEXT, name)
        for key in ("attention.sliding_window", "rope.dimension_count"):
            entries[f"llama.{key}"] = (_UINT32, 16)
        return {key.replace("llama.", f"{name}."): value for key, value in entries.items()}
    return entries


def _tensors(rng: random.Random) -> list[tuple[str, list[int], int]]:
    """Names, dimensions (innermost first) and types, mostly sound."""
    shapes = {"attn_norm": [32], "ffn_norm": [32], "attn_k": [32, 16], "attn_v": [32, 16]}
    names = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm")
    layer = [f"blk.0.{name}.weight" for name in (*names, "ffn_gate", "ffn_up", "ffn_down")]
    sound = [("token_embd.weight", [32, 13], 0), ("output_norm.weight", [32], 0)]
    sound += [(name, shapes.get(name.split(".")[2], [32, 32]), 0) for name in layer]
    if rng.random() < 0.4:
        at = rng.randrange(len(sound))
        name, shape, kind = sound[at]
        name = rng.choice(
            (name, name, "x", "blk.9999999.attn_q.weight", "blk.x.y", "output.weight")
        )
        shape = rng.choice((shape, [], [0], [1 << 40, 1 << 40], [32] * 9, shape[::-1], [33, 33]))
        sound[at] = (name, shape, rng.choice((kind, 1, 2, 8, 12, 24, 28, 30, 31, 99)))
    return sound


def _file(
    rng: random.Random,
    entries: dict[str, tuple[int, Any]],
    tensors: list[tuple[str, list[int], int]],
) -> bytes:
    out = b"GGUF" + struct.pack("<IQQ", rng.choice((3, 3, 3, 2)), len(tensors), len(entries))
    for key, (kind, value) in entries.items():
        out += _text(key) + struct.pack("<I", kind) + _value(kind, value)
    offset = 0
    for name, shape, kind in tensors:
        out += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        offset += 4096
    out += b"\0" * (-len(out) % 32)
    return out + rng.randbytes(64) * (offset // 64) if rng.random() < 0.1 else out + bytes(offset)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: int, value: Any) -> bytes:
    if kind == _TEXT:
        return _text(value)
    if kind == _LIST:
        inner, items = value
        parts = b"".join(
            struct.pack("<IQ", item[0], len(item[1]))
            + b"".join(_value(item[0], x) for x in item[1])
            if inner == _LIST
            else _value(inner, item)
            for item in items
        )
        return struct.pack("<IQ", inner, len(items)) + parts
    return struct.pack(f"<{_CODES[kind]}", value)
