"""tokenizer.json with its parts changed: expressions, tables, components of every kind."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from fuzz.checkpoints import as_json, model_case, tiny_files
from fuzz.law import Case
from fuzz.mutate import mutated, mutated_json

_EXPRESSIONS = (
    *("(a+)+$", "(a|a)*b", "(", "a{1000}{1000}", "(?<=a+)b", "(?<n>\\g<n>)", "\\p{X}", "", "."),
    *(
        "(.*)*c",
        "\\1",
        "[z-a]",
        "(?i)ſ",
        "^",
        "$",
        "\\b",
        "(?:a|ab)+?c",
        "[^\\s\\S]",
        "(a{0,9}){9}",
    ),
)
_KINDS = (
    *("BPE", "Unigram", "WordPiece", "WordLevel", "ByteLevel", "Split", "Sequence", "Replace"),
    *("NFC", "NFKD", "Lowercase", "BertNormalizer", "Precompiled", "Prepend", "Strip", "Metaspace"),
    *("Digits", "Punctuation", "TemplateProcessing", "BertProcessing", "ByteFallback", "Fuse"),
)


def cases(rng: random.Random) -> Iterator[Case]:
    """Without end."""
    raw = tiny_files()["tokenizer.json"]
    sound = json.loads(raw)
    while True:
        if rng.random() < 0.15:
            yield model_case(rng, "bytes", {"tokenizer.json": mutated(rng, raw)})
            continue
        model = {key: part for key, part in sound["model"].items() if key != "vocab"}
        value = {**sound, "model": model, **{key: _part(rng) for key in _parts(rng)}}
        if rng.random() < 0.5:
            value = mutated_json(rng, value, (*_KINDS, *_EXPRESSIONS, 1 << 32, [["a", -1.0]]))
        if isinstance(value, dict) and isinstance(value.get("model"), dict):
            # The alphabet is set apart: most changes are to fall elsewhere.
            value["model"].setdefault("vocab", _vocabulary(rng, sound["model"]["vocab"]))
        yield model_case(rng, "parts", {"tokenizer.json": as_json(value)})


def _parts(rng: random.Random) -> list[str]:
    names = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    return rng.sample(names, rng.randint(0, 2))


def _part(rng: random.Random) -> Any:
    expression = {"Regex": rng.choice(_EXPRESSIONS)}
    text = rng.choice(("", "a", " ", "▁", "é"))
    special = {"id": "x", "ids": [rng.choice((0, 258, 1 << 31))], "tokens": ["x"]}
    split = {"type": "Split", "pattern": expression, "behavior": "Isolated", "invert": False}
    return rng.choice(
        (
            split,
            {"type": "Sequence", "pretokenizers": [split, {"type": "Whitespace"}]},
            {"type": "Replace", "pattern": expression, "content": text},
            {"type": "Replace", "pattern": {"String": text}, "content": "aa"},
            {"type": "Precompiled", "precompiled_charsmap": rng.choice(("", "AAAA", "////"))},
            {"type": "Prepend", "prepend": text},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            {"type": "Digits", "individual_digits": True},
            {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": rng.choice("xy"), "type_id": 0}}],
                "pair": [],
                "special_tokens": {"x": special},
            },
            {"type": "ByteFallback"},
            {"type": "Strip", "content": "a", "start": rng.choice((0, 1 << 40)), "stop": 0},
            {"type": "WordPiece", "prefix": "##", "cleanup": True},
        )
    )


def _vocabulary(rng: random.Random, vocabulary: dict[str, int]) -> Any:
    changed = dict(vocabulary)
    for _ in range(rng.choice((0, 0, 1, 3))):
        token = rng.choice(("zz", "", "a", "\ud800", *list(vocabulary)[:3]))
        changed[token] = rng.choice((0, 258, 259, -1, 1 << 31, 1 << 32, 1 << 64))
    return changed
