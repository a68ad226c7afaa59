"""Tokenizers inside GGUF files: what is read back is held to the tokenizer that was written, and
to transformers' reader."""

from __future__ import annotations

import importlib
import json
import os
import random
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp

import gguf
import numpy as np
import pytest
from tokenizer_helpers import (
    ALICE,
    BOOK,
    GPT4O,
    LLAMA3,
    QWEN,
    TEKKEN,
    byte_level,
    digits,
    split,
    trained,
)
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from nazx_cli.checkpoint.gguf import GgufFile
from nazx_cli.checkpoint.gguf_tokenizer import tokenizer_files
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.tokenizer import Tokenizer

SHARED = Path(os.environ.get("NAZX_TEST_TEXTS", "/work/shared/data"))
CONTROL, USER, UNUSED, BYTE = 3, 4, 5, 6
HARD = [
    *("", " ", "  ", "   three   spaces   ", "\t\ttabs\t", "line\nline\n\nline\r\nline\r\n\r\n"),
    *(
        "3 33 333 3333 33333 3.14 1,000,000 ²³ ½ ٣",
        "don't DON'T we'Ve I'LL 's",
        "HelloWorld iPhone",
    ),
    *("日本語のテキスト、中文文本。한국어", "🚀 😶\u200d🌫️ 👩\u200d🚀 🦙🦙", "наши слова ещё Ω ß ſ"),
    *(
        "a/b//c\n/d ----- ======= ``` !!!???",
        "e\u0301 é \u00a0 \u2028 \x85 \x00 \ufffd",
        " lead",
        "trail ",
    ),
    *("<|im_start|>user\nhi<|im_end|>", "<s>[INST] hi [/INST]</s>", "<0x0A><unk>", "▁low▁line"),
    "<think>so</think> " + " " * 40 + "x" + "\n" * 12,
]


def lines(count: int) -> list[str]:
    """Hard ones, and lines of the shared texts."""
    rng = random.Random(1)
    paths = sorted(SHARED.rglob("*.txt")) + sorted(SHARED.rglob("*.jsonl")) or [ALICE]
    found: list[str] = []
    for path in rng.sample(paths, min(len(paths), 60)):
        some = path.read_text(encoding="utf-8")[:2_000_000].splitlines(keepends=True)
        found += rng.sample(some, min(len(some), count // 40 + 1))
    return [*HARD, *(line[:2000] for line in found[:count])]


KINDS: dict[str, Callable[[], Library]] = {
    "llama-bpe": lambda: trained(split(LLAMA3)),
    "smaug-bpe": lambda: trained(split(LLAMA3)),
    "dbrx": lambda: trained(split(LLAMA3)),
    "qwen2": lambda: trained(split(QWEN), normalizers.NFC()),
    "deepseek-r1-qwen": lambda: trained(split(QWEN), normalizers.NFC()),
    "gpt-4o": lambda: trained(split(GPT4O)),
    "tekken": lambda: trained(split(TEKKEN)),
    "smollm": lambda: trained(digits()),
    "starcoder": lambda: trained(digits()),
    "refact": lambda: trained(digits()),
    "olmo": lambda: trained(byte_level(), normalizers.NFC()),
    "gpt-2": lambda: trained(byte_level()),
    "default": lambda: trained(byte_level()),
}


@cache
def original(pre: str) -> Library:
    """A tokenizer of the kind, with a token that is no control token."""
    library = KINDS[pre]()
    if pre in ("llama-bpe", "smaug-bpe", "tekken"):
        spec = json.loads(library.to_str())
        spec["model"]["ignore_merges"] = True
        library = Library.from_str(json.dumps(spec))
    library.add_tokens([AddedToken("<think>", normalized=False)])
    return library


def write_vocabulary(
    path: Path, kind: str, tokens: list[str], types: list[int], architecture: str = "llama"
) -> gguf.GGUFWriter:
    """A file with nothing but a vocabulary, open for more of it."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_tokenizer_model(kind)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 4), np.float32))
    return writer


def finished(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(path: Path) -> Tokenizer:
    """The tokenizer that a checkpoint made from the file has."""
    folder = path.parent / "read"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    for name, data in tokenizer_files(GgufFile.open(path)).items():
        (folder / name).write_bytes(data)
    return Tokenizer.from_folder(folder)


def theirs(path: Path) -> Library:
    """transformers' reader's."""
    module = importlib.import_module("transformers.integrations.gguf.gguf_tokenizer_mapping")
    architecture, tokenizer, _ = module.get_gguf_tokenizer(str(path))
    made: Library = module.convert_gguf_tokenizer(architecture, tokenizer)[0]
    return made


@cache
def byte_level_file(pre: str) -> Path:
    spec = json.loads(original(pre).to_str())
    ids = {**spec["model"]["vocab"], **{t["content"]: t["id"] for t in spec["added_tokens"]}}
    tokens = sorted(ids, key=ids.__getitem__)
    special = {t["content"]: CONTROL if t["special"] else USER for t in spec["added_tokens"]}
    path = Path(mkdtemp(prefix="nazx-test-")) / "m.gguf"
    unused = [f"[PAD{number}]" for number in range(len(tokens), len(tokens) + 3)]
    types = [special.get(token, 1) for token in tokens] + [UNUSED] * 3
    writer = write_vocabulary(path, "gpt2", tokens + unused, types)
    writer.add_tokenizer_pre(pre)
    writer.add_token_merges([" ".join(merge) for merge in spec["model"]["merges"]])
    finished(writer)
    return path


def same_ids(tokenizer: Tokenizer, library: Library, texts: list[str]) -> None:
    """Encoding and decoding, in one call and as a document; control markup stays text."""
    library.encode_special_tokens = True
    special = set(tokenizer.special_ids.values())
    for text in texts:
        ids = library.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.encode_document(text).ids.tolist() == ids, text
        assert tokenizer.decode(ids) == library.decode(ids), text
        assert not special & set(ids)
    library.encode_special_tokens = False
    for text in texts[: len(HARD)]:
        ids = library.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode_markup(text) == ids, text
        assert tokenizer.decode(ids, skip_special=False) == library.decode(
            ids, skip_special_tokens=False
        )


@pytest.mark.parametrize("pre", KINDS)
def test_a_byte_level_tokenizer_comes_back(pre: str) -> None:
    tokenizer = read(byte_level_file(pre))
    alike = pre in ("smaug-bpe", "deepseek-r1-qwen", "starcoder", "refact", "default")
    same_ids(tokenizer, original(pre), lines(20 if alike else 300))
    assert tokenizer._cutting is not None
    for text in HARD:
        if "\u0301" not in text:  # composed by some
            assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.slow
@pytest.mark.parametrize("pre", KINDS)
def test_ten_thousand_lines_have_the_original_s_tokens(pre: str) -> None:
    same_ids(read(byte_level_file(pre)), original(pre), lines(10_000))


@pytest.mark.parametrize("pre", ["llama-bpe", "qwen2", "gpt-4o", "tekken"])
def test_transformers_reads_the_same_byte_level_tokenizer(pre: str) -> None:
    """But for NFC, which it leaves out."""
    tokenizer, library = read(byte_level_file(pre)), theirs(byte_level_file(pre))
    library.encode_special_tokens = True
    for text in lines(100):
        if text.isascii():
            assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids


# SentencePiece


class SentencePiece:
    """Its byte pair encoding, as slow as can be: the two neighbours whose token has the best score
    are merged, the leftmost of equal ones, until no two make a token."""

    def __init__(self, scores: dict[str, float], in_front: bool) -> None:
        self.scores, self.in_front = scores, in_front

    def pieces(self, text: str) -> list[str]:
        if not text:
            return []
        parts = list((" " * self.in_front + text).replace(" ", "▁"))
        while True:
            found = [self.scores.get(one + other) for one, other in pairwise(parts)]
            best = max((score for score in found if score is not None), default=None)
            if best is None:
                break
            at = found.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        out: list[str] = []
        for part in parts:
            out += [part] if part in self.scores else [f"<0x{b:02X}>" for b in part.encode()]
        return out


SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@cache
def scored() -> dict[str, float]:
    """Tokens of words and runs of spaces by their scores, in the way of SentencePiece's trainer:
    -0, -1, ... as they were merged, single characters last."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=1500, show_progress=False)
    library.train_from_iterator([BOOK[:80_000].replace("\n", " "), "日本 é🙂 " * 9], trainer)
    model = json.loads(library.to_str())["model"]
    merged = ["".join(merge) for merge in model["merges"]]
    runs = ["▁▁", "▁▁▁▁", "▁▁▁▁▁▁▁▁", "▁▁▁", "<0", "s>", "<s"]
    characters = [token for token in model["vocab"] if len(token) == 1] + ["<", ">", "0"]
    tokens = dict.fromkeys([*runs, *merged, *characters])
    return {token: -float(number) for number, token in enumerate(tokens)}


def sentencepiece_file(
    folder: Path, extra: dict[str, int], architecture: str = "llama", **flags: bool
) -> tuple[Path, list[str]]:
    """``extra`` tokens of a type behind the others; the file and its tokens."""
    tokens = [*SPECIAL, *BYTES, *scored(), *extra]
    types = [2, CONTROL, CONTROL, *[BYTE] * 256, *[1] * len(scored()), *extra.values()]
    writer = write_vocabulary(folder / "m.gguf", "llama", tokens, types, architecture)
    scores = [0.0] * 259 + list(scored().values()) + [-1000.0] * len(extra)
    writer.add_token_scores(scores)
    writer.add_tokenizer_pre("default")
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, value in flags.items():
        getattr(writer, f"add_{name}")(value)
    finished(writer)
    return folder / "m.gguf", tokens


def check_pieces(tokenizer: Tokenizer, tokens: list[str], in_front: bool, texts: list[str]) -> None:
    reference = SentencePiece(scored(), in_front)
    for text in texts:
        ids = tokenizer.encode(text)
        assert [tokens[number] for number in ids] == reference.pieces(text), text
        assert tokenizer.encode_document(text).ids.tolist() == ids, text
        assert tokenizer.decode(ids) == text.replace("▁", " "), text
        stream = tokenizer.stream()
        said = "".join(stream.push(number) for number in ids) + stream.flush()
        assert said == tokenizer.decode(ids), text


@pytest.mark.parametrize("in_front", [True, False])
def test_a_sentencepiece_tokenizer_is_read(tmp_path: Path, in_front: bool) -> None:
    flags = {} if in_front else {"add_space_prefix": False}
    path, tokens = sentencepiece_file(tmp_path, {}, **flags)
    tokenizer = read(path)
    check_pieces(tokenizer, tokens, in_front, [line[:150] for line in lines(300)])
    assert tokenizer.add_bos
    assert tokenizer._cutting is not None
    assert tokenizer.encode_markup("<s>a</s>")[::2][0] == 1
    assert not {0, 1, 2} & set(tokenizer.encode("<s>a</s><unk>"))


@pytest.mark.slow
def test_ten_thousand_lines_have_sentencepiece_s_tokens(tmp_path: Path) -> None:
    path, tokens = sentencepiece_file(tmp_path, {})
    check_pieces(read(path), tokens, True, [line[:300] for line in lines(10_000)])


def test_transformers_reads_the_same_sentencepiece_tokenizer(tmp_path: Path) -> None:
    path, _ = sentencepiece_file(tmp_path, {})
    tokenizer, library = read(path), theirs(path)
    library.encode_special_tokens = True
    for text in lines(200):
        if not text.startswith((" ", "▁")) and "<" not in text:  # it merges control tokens
            assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids


def test_gemma_s_runs_of_spaces_and_lines_are_whole(tmp_path: Path) -> None:
    """llama.cpp writes them as they stand in a text."""
    extra = {"\n": USER, "\n\n": USER, "      ": USER, "<table>": USER, "<start_of_turn>": CONTROL}
    path, tokens = sentencepiece_file(tmp_path, extra, "gemma2", add_space_prefix=False)
    tokenizer = read(path)
    found = [tokens[number] for number in tokenizer.encode("\n\n\n      <table>\n")]
    assert found == ["\n\n", "\n", "      ", "<table>", "\n"]
    assert tokens.index("<start_of_turn>") not in tokenizer.encode("<start_of_turn>")
    assert tokenizer._cutting is not None
    text = "a\n\n\n b      c<table>d\n" * 50
    assert tokenizer.encode_document(text).ids.tolist() == tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_phi_3_s_control_tokens_take_the_whitespace_behind_them(tmp_path: Path) -> None:
    extra = {"<|user|>": CONTROL, "<|end|>": CONTROL, "<|endoftext|>": CONTROL}
    path, tokens = sentencepiece_file(tmp_path, extra, "phi3")
    tokenizer = read(path)

    def pieces(text: str) -> list[str]:
        return [tokens[number] for number in tokenizer.encode_markup(text)]

    said = ["<|user|>", *pieces("said"), "<|end|>"]
    assert pieces("<|user|>\nsaid<|end|>\n") == said
    assert pieces("<|endoftext|>\n") == ["<|endoftext|>", "▁", "<0x0A>"]
    assert pieces("said")[0].startswith("▁")


def test_mistral_s_questions_get_no_second_space(tmp_path: Path) -> None:
    """From version 3 on, whose [INST] is a control token; before it is text like any other."""
    path, tokens = sentencepiece_file(tmp_path, {"[INST]": CONTROL, "[/INST]": CONTROL})
    tokenizer = read(path)
    ids = tokenizer.encode_markup("<s>[INST] said[/INST]")
    assert [tokens[number] for number in ids][:2] == ["<s>", "[INST]"]
    assert ids[2:-1] == tokenizer.encode("said")
    assert tokenizer.decode(tokenizer.encode("said it")) == "said it"


def test_a_user_s_token_that_ends_a_text_is_not_taken_from_documents(tmp_path: Path) -> None:
    path, tokens = sentencepiece_file(tmp_path, {"<|eot_id|>": USER, "<think>": USER})
    tokenizer = read(path)
    ids = tokenizer.encode("<think><|eot_id|>")
    assert tokens.index("<think>") in ids
    assert tokens.index("<|eot_id|>") not in ids


@pytest.mark.parametrize("scores", [[], [0.0], [float("nan")] * 2000])
def test_scores_that_make_no_sense_are_refused(tmp_path: Path, scores: list[float]) -> None:
    writer = write_vocabulary(tmp_path / "m.gguf", "llama", ["a", "b", "ab"], [1, 1, 1])
    if scores:
        writer.add_token_scores(scores)
    finished(writer)
    with pytest.raises(ModelUnavailableError, match="makes no sense"):
        tokenizer_files(GgufFile.open(tmp_path / "m.gguf"))


@pytest.mark.parametrize("kind", ["bert", "t5", "rwkv"])
def test_other_kinds_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    finished(write_vocabulary(tmp_path / "m.gguf", kind, ["a"], [1]))
    with pytest.raises(ModelUnavailableError, match=kind) as caught:
        tokenizer_files(GgufFile.open(tmp_path / "m.gguf"))
    assert caught.value.hint
