"""Tokenizers of many kinds, texts that split them into words in every way, and the comparison with
one plain call."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tokenizers import Tokenizer as Backend

from nazx_cli.tokenizer import Tokenizer, Tokens

ALICE = Path(__file__).parent / "data" / "alice.txt"
BOOK = ALICE.read_text(encoding="utf-8")
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
CAPITALS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
OTHERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
NAMES = (
    *("gpt2", "digits", "prefixed", "prefixed-digits", "prefixed-spaces", "trimmed"),
    *("llama3", "qwen", "neox", "neox-llama3", "tools", "gpt4o"),
)
MORE = ("mistral", "mistral-first", "gemma", "crossing-lines", "tekken")
WHOLE = (
    *("wordpiece", "unigram", "metaspace", "trimmed-prefix", "phrases", "stripping"),
    *("lower", "unknown", "none", "crossing-words"),
)


def byte_level(prefix: bool = False, regex: bool = True) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def split(expression: str) -> pre_tokenizers.PreTokenizer:
    steps = [pre_tokenizers.Split(Regex(expression), "isolated"), byte_level(regex=False)]
    return pre_tokenizers.Sequence(steps)


def digits(prefix: bool = False) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=not prefix), byte_level(prefix)]
    )


def trained(pre: pre_tokenizers.PreTokenizer | None, normalizer: object = None) -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = byte_level() if pre is None else pre
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([BOOK[:60_000], "été  \n\n\n\t\t наши слова 's 'll " * 50], trainer)
    if pre is None:
        backend.pre_tokenizer = None
    return backend


def with_tokens(backend: Backend, *contents: str, **flags: bool) -> Backend:
    flags.setdefault("normalized", True)
    backend.add_tokens([AddedToken(content, **flags) for content in contents])
    return backend


def with_post(backend: Backend, *, prefix: bool) -> Backend:
    backend.post_processor = processors.ByteLevel(trim_offsets=True, add_prefix_space=prefix)
    return backend


def words(kind: str) -> Backend:
    if kind == "wordpiece":
        backend = Backend(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer()
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: object = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]"])
    elif kind == "unigram":
        backend = Backend(models.Unigram())
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
        )
    else:
        backend = Backend(models.BPE(unk_token="<unk>", fuse_unk=True))
        backend.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
        trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"])
    backend.train_from_iterator(BOOK[:20_000].splitlines(), trainer)
    return backend


PREPEND, REPLACE = normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")


def spaced(
    steps: list[normalizers.Normalizer],
    pre: pre_tokenizers.PreTokenizer | None = None,
    lines: str = "",
) -> Backend:
    """One of SentencePiece's kind: words of the book, runs of spaces, and bytes for the rest.
    ``lines`` is merged besides: it goes across line breaks or words."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = Backend(models.BPE())
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=900, show_progress=False)
    words.train_from_iterator([BOOK[:60_000].replace("\n", " "), "日本 é🙂 " * 9], trainer)
    model = json.loads(words.to_str())["model"]
    pieces = [*model["vocab"], *(["\n"] if "\n" in lines else [])]
    merges = [tuple(merge) for merge in model["merges"]]
    for run in ("▁▁", "▁▁▁▁", lines.replace(" ", "▁")):
        for end in range(2, len(run) + 1):
            merges.append((run[: end - 1], run[end - 1 : end]))
    made = dict.fromkeys(one + other for one, other in merges)
    pieces = list(dict.fromkeys([*special, *pieces, *made]))
    merges = list(dict.fromkeys(merges))
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    bpe = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    backend = Backend(bpe)
    backend.normalizer = normalizers.Sequence(steps) if steps else None
    backend.pre_tokenizer = pre
    backend.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in special[:3]]
    )
    return backend


SPACES = [" " * n for n in range(2, 9)]
LLAMA3 = CONTRACTIONS + r"\p{N}{1,3}" + OTHERS
QWEN = CONTRACTIONS + r"\p{N}" + OTHERS
SLASHES = OTHERS.replace(r"[\r\n]*|", r"[\r\n/]*|")
GPT4O = "|".join(f"{word}(?i:'s|'t|'re|'ve|'m|'ll|'d)?" for word in CAPITALS)
GPT4O += r"|\p{N}{1,3}" + SLASHES
TEKKEN = "|".join(CAPITALS) + r"|\p{N}" + SLASHES
BUILDERS: dict[str, Callable[[], Backend]] = {
    "gpt2": lambda: trained(byte_level()),
    "digits": lambda: trained(digits()),
    "prefixed": lambda: trained(byte_level(prefix=True)),
    "prefixed-digits": lambda: trained(digits(prefix=True)),
    "prefixed-spaces": lambda: with_tokens(trained(byte_level(prefix=True)), " ", *SPACES),
    "llama3": lambda: trained(split(LLAMA3)),
    "qwen": lambda: trained(split(QWEN), normalizers.NFC()),
    "neox": lambda: with_tokens(trained(byte_level(), normalizers.NFC()), *SPACES),
    "neox-llama3": lambda: with_tokens(trained(split(LLAMA3)), *SPACES, "\t\t", "rabbit"),
    "trimmed": lambda: with_post(trained(byte_level()), prefix=False),
    "gpt4o": lambda: trained(split(GPT4O)),
    "tekken": lambda: trained(split(TEKKEN)),
    "mistral": lambda: spaced([PREPEND, REPLACE]),
    "mistral-first": lambda: spaced(
        [], pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    ),
    "gemma": lambda: with_tokens(
        spaced([REPLACE], pre_tokenizers.Split(" ", "merged_with_previous"), lines="\n\n"),
        *("\n\n", "\n\n\n", "<table>", "<|tool|>", *SPACES),
        normalized=False,
    ),
    "crossing-lines": lambda: spaced([PREPEND, REPLACE], lines=".\n\n"),
    "crossing-words": lambda: spaced([PREPEND, REPLACE], lines="e t"),
    "tools": lambda: with_tokens(trained(split(QWEN)), "<tool_call>", "</tool_call>", "--"),
    "wordpiece": lambda: words("wordpiece"),
    "unigram": lambda: words("unigram"),
    "metaspace": lambda: words("metaspace"),
    "trimmed-prefix": lambda: with_post(trained(byte_level()), prefix=True),
    "phrases": lambda: with_tokens(trained(byte_level()), "the rabbit", "well-known", "\n\n"),
    "stripping": lambda: with_tokens(trained(byte_level()), "rabbit", lstrip=True, rstrip=True),
    "lower": lambda: trained(byte_level(), normalizers.Lowercase()),
    "unknown": lambda: trained(split(r"\p{L}+| |[^\p{L} ]+ ?")),
    "none": lambda: trained(None),
}


@cache
def tokenizer(name: str) -> Tokenizer:
    return Tokenizer(BUILDERS[name]())


def plain(tok: Tokenizer, text: str) -> tuple[list[int], list[int]]:
    """Ids and starts by the backend's own call."""
    backend = tok._backend.library
    backend.encode_special_tokens = True
    encoding = backend.encode(text, add_special_tokens=False)
    return encoding.ids, [start for start, _ in encoding.offsets]


def lists(tokens: Tokens) -> tuple[list[int], list[int]]:
    assert tokens.ids.dtype == tokens.starts.dtype == np.int32
    return tokens.ids.tolist(), tokens.starts.tolist()


def check(tok: Tokenizer, text: str) -> None:
    got, expected = lists(tok.encode_document(text)), plain(tok, text)
    if got != expected:
        at = next(
            (
                i
                for i, (a, b) in enumerate(zip(*got, strict=True))
                if i >= len(expected[0]) or (a, b) != (expected[0][i], expected[1][i])
            ),
            0,
        )
        place = got[1][at] if at < len(got[1]) else len(text)
        raise AssertionError(f"differs at {place}: {text[max(0, place - 20) : place + 20]!r}")


WHITESPACE = [c for c in map(chr, range(sys.maxunicode)) if c.isspace()]
PIECES = (
    *WHITESPACE,
    *" \n\t\r",
    *("\r\n", "\n\n", " \n", "\n ", "  ", "   ", "\n\n  ", " \n \n", "\t\n", "\u180e", "\u200b"),
    *("the", "The", "rabbit", "said", "é", "e\u0301", "наши", "слово", "日本", "語", "ß", "ſ", "Ω"),
    *("'", "'s", "'S", "'ll", "'RE", "’s", "don't", "'ſ"),
    *(",", ".", "!", "?!", "--", "—", "“", "”", "…", "(", ")", "<", ">", "=", "_", "/", "\\", "["),
    *("1", "22", "333", "4444", "²", "٣", "Ⅷ", "½"),
    *("\u0301", "\u0338", "\u0323\u0301", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u200d", "\ufe0f"),
    *("<|im_end|>", "<|im_start|>", "<tool_call>", "</tool_call>", "well-known", "the rabbit"),
    *("🙂", "👩\u200d🚀", "\U0001d49c", "\U000e0001", "\U0010ffff", "\x00", "\x1c", "\x1f", "\x85"),
)


def random_text(rng: random.Random, length: int) -> str:
    """A mixture of everything that splits texts into words, and of any characters at all."""
    found: list[str] = []
    for _ in range(length):
        kind = rng.random()
        if kind < 0.7:
            found.append(rng.choice(PIECES))
        elif kind < 0.8:
            found.append(rng.choice(PIECES) * rng.choice((2, 3, 20)))
        elif kind < 0.9:
            begin = rng.randrange(len(BOOK))
            found.append(BOOK[begin : begin + rng.randrange(30)])
        else:
            code = rng.randrange(rng.choice((0x80, 0x800, 0x10000, 0x110000)))
            found.append("\ufffd" if 0xD800 <= code < 0xE000 else chr(code))
    return "".join(found)
