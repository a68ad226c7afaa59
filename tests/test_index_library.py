"""Documents of an index are read as those in memory are: same words, same passages, same order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from reading_helpers import alice_text, library_of, small_tokenizer
from test_recall import random_text

from nazx_cli.documents.document import Document, Origin, Place
from nazx_cli.index import build
from nazx_cli.index.build import Builder
from nazx_cli.index.documents import StoredDocument
from nazx_cli.index.library import IndexedLibrary
from nazx_cli.index.segment import Segment
from nazx_cli.reading import recall
from nazx_cli.reading.library import Library
from nazx_cli.reading.plan import groups, select, typical_passages
from nazx_cli.reading.recall import rank
from nazx_cli.reading.summaries.digest import digest
from nazx_cli.reading.summaries.overview import is_overview
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.reading.words import stem, words

QUESTIONS = (
    "Who is on trial, and what for?",
    "What did the Queen say to the King of Hearts?",
    "Where did Alice meet the caterpillar?",
    "summarize",
    "Tell me about the Mock Turtle",
    "xylophone?",
    "the of and",
)


def stored(
    folder: Path, documents: Sequence[TokenizedDocument], segments: int, rng: random.Random
) -> list[TokenizedDocument]:
    """The same documents in so many segments, in another order, among others; a few in memory."""
    tokenizer = small_tokenizer()
    builders = [Builder(tokenizer) for _ in range(segments)]
    found = list(documents)
    for number in rng.sample(range(len(documents)), len(documents)):
        document, at = documents[number], rng.randrange(segments + 1)
        if at == segments:
            continue  # it stays in memory
        builder = builders[at]
        if rng.random() < 0.3:
            other = Document("other", random_text(rng) + " Alice", "text")
            builder.add("ff" * 32, TokenizedDocument.build(other, tokenizer))
        builder.add(f"{number:064x}", document)
    for at, builder in enumerate(builders):
        if not len(builder):
            continue
        path = folder / f"{at}.safetensors"
        builder.write(path)
        segment = Segment(path)
        for d, sha256 in enumerate(builder.hashes):
            if (number := int(sha256, 16)) < len(documents):
                name = documents[number].name
                origin = Origin(f"/{name}", sha256, 1, 1)
                found[number] = StoredDocument(name, segment, d, origin, tokenizer)
    return found


def pair(folder: Path, texts: Sequence[str], rng: random.Random) -> tuple[Library, Library]:
    plain = library_of(*texts)
    documents = stored(folder, plain.documents, rng.randrange(1, 4), rng)
    found = Library.of(documents, plain.tokenizer)
    return plain, found


def pieces_of_alice(rng: random.Random, count: int) -> list[str]:
    paragraphs = alice_text().split("\n\n")
    return ["\n\n".join(rng.sample(paragraphs, rng.randrange(1, 60))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(12))
def test_words_are_found_where_they_are_in_memory(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    texts = [random_text(rng) or "cat" for _ in range(rng.randrange(1, 7))]
    plain, found = pair(tmp_path, texts, rng)
    assert found.cuts.tolist() == plain.cuts.tolist()
    every = np.arange(len(plain.blocks))
    targets = {stem(w) for text in texts for w in words(text)} | {"absent", "alic", "c"}
    for target in targets:
        assert found.matcher.find(target).tolist() == plain.matcher.find(target).tolist()
        ours, theirs = found.matcher.tally(target), plain.matcher.tally(target)
        assert (ours.holding, ours.total) == (theirs.holding, theirs.total)
        assert np.array_equal(ours.around(every), theirs.around(every))
        assert found.matcher.has(target) == plain.matcher.has(target)
    assert found.matcher.initials == plain.matcher.initials
    assert found.matcher.scripts == plain.matcher.scripts
    assert found.holding.tolist() == plain.holding.tolist()
    for start in ("c", "Cat", "cAT", "zyz", "Stopp", "st", "nobody", "x", "Zyzzyvas"):
        for spelled in (False, True):
            ours = found.matcher.begins(start, spelled=spelled)
            assert ours == plain.matcher.begins(start, spelled=spelled), (start, spelled)
    for word in ("cat", "naïve"):
        assert found.matcher.can_tell(word) == plain.matcher.can_tell(word)


@pytest.mark.parametrize("seed", range(4))
def test_the_same_passages_come_in_the_same_order(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    plain, found = pair(tmp_path, pieces_of_alice(rng, 9), rng)
    assert isinstance(found, IndexedLibrary)
    assert list(found.passages) == list(plain.passages)
    for question in QUESTIONS:
        ours, theirs = rank(found, question), rank(plain, question)
        assert ours.order.tolist() == theirs.order.tolist()
        assert ours.scores.tolist() == theirs.scores.tolist()
        assert is_overview(found, question) == is_overview(plain, question)
        for mode in ("auto", "recall", "tail"):
            choose = partial(select, question=question, mode=mode, budget=900)
            assert choose(found) == choose(plain)
        sized = partial(groups, question=question, together=2, apart=5, budget=500)
        assert sized(found) == sized(plain)
        assert list(digest(found, question, 400).excerpts()) == list(
            digest(plain, question, 400).excerpts()
        )
    for count in (1, 4, 30):
        assert typical_passages(found, count) == typical_passages(plain, count)
    for name in ("_FEWEST_BLOCKS", "_FEWEST"):
        monkeypatch.setattr(recall, name, 0)
    for question, first in product(QUESTIONS, (1, 4)):
        monkeypatch.setattr(recall, "_FIRST", first)
        whole = rank(plain, question)
        for most, library in product((0, 1, 5, 64, 10_000), (found, plain)):
            best = rank(library, question, most)
            assert best.order.tolist() == whole.order.tolist()[:most], (question, most)
            assert best.scores[best.order].tolist() == whole.scores[best.order].tolist()


@pytest.mark.parametrize("common", [0.0, 1 / 8, 1e9])
def test_no_passage_counts_more_than_the_limit_of_its_block(
    common: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "COMMON", common)
    rng = random.Random(7)
    repeated = ["the " * 300 + "cat", "x", "the cat"]
    plain, found = pair(tmp_path, [*pieces_of_alice(rng, 5), *repeated], rng)
    every = np.arange(len(plain.blocks))
    for target in ("the", "cat", "alic", "said", "mushroom", "absent"):
        exact = plain.blocks.spread(plain.matcher.tally(target).around(every)).max(axis=1)
        for library in (plain, found):
            limits = library.matcher.tally(target).limits()
            assert limits.shape == exact.shape and (limits >= exact).all(), target


def test_a_document_tells_the_same_from_disk(tmp_path: Path) -> None:
    text = "\n\nÉtoiles\n\n" + alice_text()[:9000] + "\n兔子\n"
    document = Document("book.pdf", text, "pdf", (Place(0, "page 1"), Place(4000, "page 2")))
    tokenizer = small_tokenizer()
    plain = TokenizedDocument.build(document, tokenizer)
    empty = TokenizedDocument(Document("e", "x", "text"), *[np.zeros(0, np.int32)] * 2)
    builder = Builder(tokenizer)
    for number, each in enumerate((empty, plain, empty)):
        builder.add(f"{number:064x}", each)
    builder.write(tmp_path / "a.safetensors")
    segment = Segment(tmp_path / "a.safetensors")
    origin = Origin("/book.pdf", "1", 1, 1)
    found = StoredDocument("book.pdf", segment, 1, origin, tokenizer)
    assert len(found) == len(plain) and found.text == text and found.document.format == "pdf"
    assert found.document.places == document.places and found.document.origin == origin
    assert found.ids.tolist() == plain.ids.tolist()
    assert found.starts.tolist() == plain.starts.tolist()
    assert found.cuts().tolist() == plain.cuts().tolist()
    for at in (0, 1, 2, 500, 5000, len(text) - 1):
        assert found.line_of(at) == plain.line_of(at)
        assert found.between(at, at + 700) == text[at : at + 700]
    assert StoredDocument("e", segment, 0, origin, tokenizer).text == "x"
    assert StoredDocument("e", segment, 2, origin, tokenizer).between(0, 1) == "x"
    assert segment.hash_of(1) == f"{1:064x}"
