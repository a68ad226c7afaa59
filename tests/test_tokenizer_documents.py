"""Documents and edits, tokenized in chunks: always exactly what one plain call gives."""

from __future__ import annotations

import os
import random
import sys
import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from tokenizer_helpers import (
    ALICE,
    BOOK,
    BUILDERS,
    MORE,
    NAMES,
    WHOLE,
    check,
    lists,
    plain,
    random_text,
    tokenizer,
)
from tokenizers import Encoding

from nazx_cli.tokenizer import Tokenizer, Tokens
from nazx_cli.tokenizer import encode as edits
from nazx_cli.tokenizer.backend import Backend as Guarded

SHARED = Path(os.environ.get("NAZX_TEST_TEXTS", "/work/shared/data"))


def check_words(tok: Tokenizer, text: str) -> None:
    """The words of the chunks, and of pieces between cuts, are those of the text: ids alone may
    be the same by chance, where no merge goes across."""
    cutting, pre = tok._cutting, tok._backend.library.pre_tokenizer
    assert cutting is not None
    expected = pre.pre_tokenize_str(text)
    cuts = [0, *(match.end() for match in cutting.cut.finditer(text)), len(text)]
    pieces = [text[begin:end] for begin, end in pairwise(cuts)]
    for parts in (cutting.chunks.findall(text), pieces):
        words, at = [], 0
        for part in parts:
            found = pre.pre_tokenize_str(part)
            words += [(word, (at + begin, at + end)) for word, (begin, end) in found]
            at += len(part)
        assert words == expected
        assert at == len(text)


@pytest.fixture(params=("as they are", "tiny"))
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder's sizes, and such that everything is cut, forgotten and begun anew."""
    if request.param == "tiny":
        monkeypatch.setattr(edits, "PIECE", 9)
        monkeypatch.setattr(edits, "_TOGETHER", 12)
        monkeypatch.setattr(edits, "_KEPT", 40)


@pytest.mark.parametrize("name", (*NAMES, *MORE))
def test_the_usual_tokenizers_work_in_chunks(name: str) -> None:
    assert tokenizer(name)._cutting is not None


@pytest.mark.parametrize("name", WHOLE)
def test_where_no_cut_is_known_to_be_safe_texts_stay_whole(name: str) -> None:
    seen: list[tuple[int, int]] = []
    tok, text = tokenizer(name), "the rabbit  said,\n\nwell-known rabbit " + BOOK[:3000]
    assert tok._cutting is None
    tokens = tok.encode_document(text, lambda done, total: seen.append((done, total)))
    assert lists(tokens) == plain(tok, text)
    assert seen == [(len(text), len(text))]
    assert lists(tok.encode_edited(text, tokens, "a" + text)) == plain(tok, "a" + text)


@pytest.mark.parametrize("name", (*NAMES, *MORE))
@pytest.mark.usefixtures("sizes")
def test_random_texts_have_the_tokens_of_one_call(name: str) -> None:
    rng = random.Random(5)
    for _ in range(60):
        check(tokenizer(name), random_text(rng, rng.choice((0, 1, 2, 5, 30, 120))))


@pytest.mark.parametrize(
    "name",
    ("gpt2", "digits", "prefixed", "prefixed-digits", "llama3", "qwen", "gpt4o", "tekken"),
)
def test_random_texts_have_the_words_of_the_whole(name: str) -> None:
    rng = random.Random(6)
    for _ in range(60):
        check_words(tokenizer(name), random_text(rng, rng.choice((0, 1, 2, 5, 30, 120))))
    check_words(tokenizer(name), BOOK[:20_000])


@pytest.mark.parametrize("name", (*NAMES, "mistral", "gemma"))
def test_a_book_has_the_tokens_of_one_call(name: str) -> None:
    check(tokenizer(name), BOOK)
    check(tokenizer(name), BOOK.replace("\n", "\r\n").upper())
    check(tokenizer(name), " ".join(BOOK.split()))


@pytest.mark.parametrize("name", (*NAMES, "mistral", "gemma"))
def test_long_runs_have_the_tokens_of_one_call(name: str) -> None:
    runs = [run * 3000 for run in (" ", "\n", "a", "é", "'", ".", "1", " \n", "\n ", "a ", "日\n")]
    for run in runs:
        check(tokenizer(name), run)
        check(tokenizer(name), f"word{run}word")
    check(tokenizer(name), "".join(runs))


@pytest.mark.parametrize("name", ("gpt2", "prefixed", "llama3", "qwen", "gpt4o", "tekken"))
def test_each_character_is_taken_for_what_the_backend_takes_it_for(name: str) -> None:
    """Whitespace or not is told by what becomes of spaces around a character."""
    special = [c for c in map(chr, range(0x3100)) if unicodedata.category(c)[0] in "ZC"]
    some = dict.fromkeys((*special, *map(chr, range(0, sys.maxunicode, 311))))
    known = [c for c in some if unicodedata.category(c) not in ("Cn", "Co", "Cs")]
    check_words(tokenizer(name), "".join(f"x{c}  x!{c}\n\nx {c}!" for c in known))


@pytest.mark.parametrize("name", ("gpt2", "llama3", "qwen", "gpt4o", "tekken"))
def test_letters_end_before_all_that_may_come_after_them(name: str) -> None:
    ends = [c for c in map(chr, range(0x80)) if not c.isalnum()]
    ends += [chr(code) for code in range(0x2010, 0x2028)]
    some = [chr(code) for code in (*range(0xC0, 0x250), *range(0x400, 0x500))]
    check_words(tokenizer(name), "".join(f" {a}{b}" for a, b in product(some[::3], ends)))
    check_words(tokenizer(name), "".join(f" {a}, {a}.\n{a}" for a in some))


def texts() -> list[Path]:
    return sorted(SHARED.rglob("*.txt")) + sorted(SHARED.rglob("*.jsonl")) or [ALICE]


@pytest.mark.parametrize("name", ("digits", "llama3", "prefixed"))
def test_texts_of_many_kinds_have_the_tokens_of_one_call(name: str) -> None:
    rng = random.Random(7)
    for path in rng.sample(texts(), min(12, len(texts()))):
        check(tokenizer(name), path.read_text(encoding="utf-8")[:200_000])


def test_progress_is_told_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "PIECE", 10_000)
    seen: list[tuple[int, int]] = []
    tokenizer("gpt2").encode_document(BOOK, lambda done, total: seen.append((done, total)))
    done = [count for count, _ in seen]
    assert done == sorted(set(done))
    assert len(seen) > 5
    assert seen[-1] == (len(BOOK), len(BOOK))


def test_no_truncation_and_no_padding_of_the_file_is_kept() -> None:
    backend = BUILDERS["gpt2"]()
    expected = plain(Tokenizer(backend), BOOK)
    backend.enable_truncation(5)
    backend.enable_padding(length=100)
    tok = Tokenizer(backend)
    assert tok.encode("word") == tokenizer("gpt2").encode("word")
    assert lists(tok.encode_document(BOOK)) == expected


def edited(rng: random.Random, text: str) -> str:
    """``text`` with one to three stretches put in, taken out or replaced."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        begin = rng.choice((0, len(text), rng.randrange(len(text) + 1)))
        end = min(len(text), begin + rng.choice((0, 0, 1, 5, 100)))
        text = text[:begin] + random_text(rng, rng.choice((0, 1, 1, 4))) + text[end:]
    return text


@pytest.mark.parametrize("name", (*NAMES, *MORE))
def test_an_edited_text_has_the_tokens_of_a_new_one(name: str) -> None:
    rng = random.Random(11)
    tok = tokenizer(name)
    for _ in range(60):
        old = rng.choice((BOOK[:4000], random_text(rng, rng.choice((0, 3, 40)))))
        new = edited(rng, old)
        assert lists(tok.encode_edited(old, tok.encode_document(old), new)) == plain(tok, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", "the rabbit"),
        ("the rabbit", ""),
        ("the the the ", "the the the the "),
        ("aa", "aaa"),
        ("a\n\n\nb", "a\n\n\n\nb"),
        ("one  two", "one   two"),
        ("Plain text. " * 200, "Plain text. " * 200 + "”"),
    ],
)
def test_texts_that_differ_little_have_the_tokens_of_a_new_one(old: str, new: str) -> None:
    for name in (*NAMES, *MORE):
        tok = tokenizer(name)
        assert lists(tok.encode_edited(old, tok.encode_document(old), new)) == plain(tok, new)


def test_only_what_is_around_an_edit_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    tok, middle = tokenizer("llama3"), len(BOOK) // 2
    tokens = tok.encode_document(BOOK)
    encoded: list[str] = []
    seen: list[tuple[int, int]] = []
    original = tok.encode_document

    def spy(
        text: str,
        on_progress: Callable[[int, int], None] | None = None,
        *,
        continued: bool = False,
    ) -> Tokens:
        encoded.append(text)
        return original(text, on_progress, continued=continued)

    monkeypatch.setattr(tok, "encode_document", spy)
    new = f"{BOOK[:middle]} and a new thing {BOOK[middle:]}"
    got = tok.encode_edited(BOOK, tokens, new, lambda done, total: seen.append((done, total)))
    assert lists(got) == plain(tok, new)
    assert sum(map(len, encoded)) < 200
    assert seen[-1] == (len(new), len(new))


def shared(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def test_shared_ends_are_found_to_the_character(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "_BLOCK", 3)
    rng = random.Random(3)
    for _ in range(300):
        one = "".join(rng.choice("ab") for _ in range(rng.randrange(20)))
        other = edited(rng, one) if rng.random() < 0.5 else one[: rng.randrange(len(one) + 1)]
        limit = min(len(one), len(other))
        expected = shared(one, other)
        assert edits.shared_prefix(one, other) == expected
        backwards = shared(one[::-1], other[::-1])
        assert edits.shared_suffix(one, other, limit) == backwards
        assert edits.shared_suffix(one, other, limit // 2) == min(backwards, limit // 2)


@pytest.mark.parametrize("name", ("gpt2", "llama3", "wordpiece", "none"))
def test_a_text_without_a_break_is_encoded_a_part_at_a_time(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, size in (("PIECE", 1000), ("_LONGEST", 100), ("_WHOLE", 1000)):
        monkeypatch.setattr(edits, limit, size)
    backend = tokenizer(name)._backend
    given: list[str] = []

    def encode(text: str) -> Encoding:
        given.append(text)
        return Guarded.encode(backend, text)

    def encode_batch(some: Sequence[str]) -> list[Encoding]:
        given.extend(some)
        return Guarded.encode_batch(backend, some)

    monkeypatch.setattr(backend, "encode", encode)
    monkeypatch.setattr(backend, "encode_batch", encode_batch)
    text = "words, " + "漢é" * 5000
    tokens = tokenizer(name).encode_document(text)
    assert max(map(len, given)) <= 1100
    assert np.all(np.diff(tokens.starts) >= 0)
    assert tokens.starts[-1] >= 9990
