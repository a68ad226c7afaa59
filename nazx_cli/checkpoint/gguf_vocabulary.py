"""``tokenizer.json`` from the vocabulary of a GGUF file: byte-level BPE, whose way of cutting words
the file names, and SentencePiece's BPE, whose tokens have scores in place of merges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nazx_cli.checkpoint.gguf import GgufFile
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.tokenizer.expressions import GPT4O, LLAMA3, QWEN2, TEKKEN
from nazx_cli.tokenizer.sentencepiece import SPACE

# Token types, as GGUF numbers them.
_NORMAL, _UNKNOWN, CONTROL, _USER_DEFINED, _UNUSED = 1, 2, 3, 4, 5

# Texts of tokens that end an answer, whether or not the file names them as such.
ENDINGS = (
    *("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>"),
    *("</s>", "<|end_of_text|>", "<｜end▁of▁sentence｜>"),
)
_LONGEST = 256  # characters of a token; no real one has half as many
_NAMED = ("bos", "eos", "eot", "eom", "unknown", "padding")


@dataclass(frozen=True)
class _Cut:
    """How a kind of byte-level tokenizer goes about a text: ``expression`` cuts words, or GPT-2's
    after each digit is set apart; ``whole`` takes words that are tokens without merging."""

    expression: str | None = None
    digits: bool = False
    normalizer: str | None = None
    whole: bool = False
    adds_bos: bool = False


_LLAMA3 = _Cut(LLAMA3, whole=True, adds_bos=True)
_QWEN2 = _Cut(QWEN2, normalizer="NFC")
_CUTS = {
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), _LLAMA3),
    "smaug-bpe": _Cut(LLAMA3, whole=True),  # Llama 3's without a token in front: SmolLM3
    "dbrx": _Cut(LLAMA3),  # OLMo 2
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _QWEN2),
    "gpt-4o": _Cut(GPT4O),  # Phi-4-mini
    "tekken": _Cut(TEKKEN, whole=True, adds_bos=True),  # Mistral Nemo, Ministral
    **dict.fromkeys(("smollm", "starcoder", "refact"), _Cut(digits=True)),
    **dict.fromkeys(("olmo", "mpt"), _Cut(normalizer="NFC")),  # GPT-NeoX
    **dict.fromkeys(("gpt-2", "default"), _Cut()),
}


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a file by id, and their types; ``spec`` is the ``tokenizer.json``;
    ``adds_bos`` tells whether a text begins with a token of its own where nothing is said."""

    tokens: list[str]
    types: list[int]
    spec: dict[str, Any]
    adds_bos: bool


def read_vocabulary(file: GgufFile) -> Vocabulary:
    """``ModelUnavailableError`` for a kind of tokenizer, or way of cutting words, not known here,
    and for a vocabulary that makes no sense."""
    fields = file.fields
    kind = fields.text("tokenizer.ggml.model")
    cut = fields.text("tokenizer.ggml.pre") or "default"
    if kind not in ("gpt2", "llama"):
        raise _unreadable(file, f"tokenizer {kind!r:.60}")
    if kind == "gpt2" and cut not in _CUTS:
        raise _unreadable(file, f"way of cutting words, {cut!r:.60},")
    tokens: list[str] = fields.items("tokenizer.ggml.tokens", str)
    types: list[int] = fields.items("tokenizer.ggml.token_type", int) or [_NORMAL] * len(tokens)
    if not tokens or len(set(tokens)) != len(tokens) or len(tokens) > file.vocab_size:
        raise senseless(file)
    if len(types) != len(tokens):
        raise senseless(file)
    spec = _frame(tokens, types, _added(file, tokens, types))
    if kind == "gpt2":
        spec |= _byte_level(_CUTS[cut])
        spec["model"] |= {"merges": _merges(file), "ignore_merges": _CUTS[cut].whole}
        return Vocabulary(tokens, types, spec, _CUTS[cut].adds_bos)
    spec |= _sentencepiece(file, tokens, types)
    merges = _merges_by_score(tokens, types, _scores(file, tokens))
    unknown = next((t for t, kind in zip(tokens, types, strict=True) if kind == _UNKNOWN), None)
    how = {"unk_token": unknown, "fuse_unk": True, "byte_fallback": True}
    spec["model"] |= {"merges": merges, **how}
    return Vocabulary(tokens, types, spec, adds_bos=True)


def senseless(file: GgufFile) -> ModelUnavailableError:
    """The error for a vocabulary that cannot be one."""
    return file.damaged("its tokenizer makes no sense")


def _unreadable(file: GgufFile, what: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"{file.path}: its {what} cannot be read from GGUF",
        "take the model's own safetensors checkpoint",
    )


def _frame(tokens: list[str], types: list[int], added: list[dict[str, Any]]) -> dict[str, Any]:
    """What both kinds have; ids that stand for nothing are left out."""
    affixes = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    numbered = enumerate(zip(tokens, types, strict=True))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "model": {
            "type": "BPE",
            **dict.fromkeys(affixes),
            **dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False),
            "vocab": {token: number for number, (token, kind) in numbered if kind != _UNUSED},
        },
    }


def _added(file: GgufFile, tokens: list[str], types: list[int]) -> list[dict[str, Any]]:
    """Tokens that are looked for before anything else. Special ones are not found in documents:
    those of control, and whatever begins or ends a text."""
    named = {file.token_id(name) for name in _NAMED}
    # A file does not say so: Phi-3's take the whitespace behind them.
    keeps = file.family.name != "phi3" or file.fields.text("tokenizer.ggml.model") != "llama"
    found = []
    for number, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind not in (_UNKNOWN, CONTROL, _USER_DEFINED):
            continue
        special = kind != _USER_DEFINED or number in named or token in ENDINGS
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        if not keeps and special:
            flags["rstrip"] = token not in ("<unk>", "<s>", "<|endoftext|>")
        found.append({"id": number, "content": token, **flags, "special": special})
    return found


def _byte_level(cut: _Cut) -> dict[str, Any]:
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    steps: list[dict[str, Any]] = []
    if cut.expression:
        pattern = {"Regex": cut.expression}
        split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        steps = [split]
    elif cut.digits:
        steps = [{"type": "Digits", "individual_digits": True}]
    last = {**level, "use_regex": cut.expression is None}
    return {
        "normalizer": {"type": cut.normalizer} if cut.normalizer else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, last]} if steps else last,
        "decoder": {**level, "use_regex": True},
    }


def _merges(file: GgufFile) -> list[list[str]]:
    merges = [merge.split(" ") for merge in file.fields.items("tokenizer.ggml.merges", str)]
    if any(len(merge) != 2 for merge in merges):
        raise senseless(file)
    return merges


def _sentencepiece(file: GgufFile, tokens: list[str], types: list[int]) -> dict[str, Any]:
    """Spaces become "▁", one in front of a text too unless the file says no. Mistral's of version 3
    on, which have control tokens around a question, put it at the very beginning only, others
    after each control token."""
    in_front = file.fields.flag("tokenizer.ggml.add_space_prefix", True)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    parts: dict[str, Any] = {"normalizer": replace}
    if in_front:
        back.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
        if ("[INST]", CONTROL) in zip(tokens, types, strict=True):
            metaspace = {"type": "Metaspace", "replacement": SPACE, "split": False}
            parts = {"pre_tokenizer": {**metaspace, "prepend_scheme": "first"}}
        else:
            steps = [{"type": "Prepend", "prepend": SPACE}, replace]
            parts = {"normalizer": {"type": "Sequence", "normalizers": steps}}
    return {**parts, "decoder": {"type": "Sequence", "decoders": back}}


def _scores(file: GgufFile, tokens: list[str]) -> list[float]:
    scores: list[float] = file.fields.items("tokenizer.ggml.scores", float)
    if len(scores) < len(tokens) or not all(map(math.isfinite, scores)):
        raise senseless(file)
    return scores


def _merges_by_score(
    tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]
) -> list[list[str]]:
    """Every way to make a token of two others, those with the best score first. None makes a token
    of control, a byte or another that no text may spell."""
    numbers = [
        number
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind == _NORMAL and len(token) <= _LONGEST
    ]
    normal = {tokens[number] for number in numbers}
    merges: list[list[str]] = []
    for number in sorted(numbers, key=lambda number: (-scores[number], number)):
        token = tokens[number]
        for end in range(len(token) - 1, 0, -1):
            if token[:end] in normal and token[end:] in normal:
                merges.append([token[:end], token[end:]])
    return merges
