"""Parts and the libraries that are put together from them."""

from __future__ import annotations

import random

import numpy as np
import pytest
from reading_helpers import alice_text, small_tokenizer

from nazx_cli.documents.document import Document, Place
from nazx_cli.reading.library import Library
from nazx_cli.reading.plan import select
from nazx_cli.reading.tokenized import TokenizedDocument


def parts() -> list[TokenizedDocument]:
    text = alice_text()
    texts = [text[:5000], "", "A single line.", text[5000:20_000], "\n\n", text[20_000:30_000]]
    documents = [Document(f"{n}.txt", each, "text") for n, each in enumerate(texts)]
    return [TokenizedDocument.build(document, small_tokenizer()) for document in documents]


@pytest.mark.parametrize("seed", range(6))
def test_a_library_of_any_parts_is_that_of_their_documents(seed: int) -> None:
    rng = random.Random(seed)
    all_parts = parts()
    Library(all_parts, small_tokenizer()).matcher  # noqa: B018  (what it derives is shared)
    chosen = rng.sample(all_parts, rng.randint(1, len(all_parts)))
    aim = rng.choice([20, 100])
    made = Library(chosen, small_tokenizer(), aim)
    built = Library.build([p.document for p in chosen], small_tokenizer(), passage_tokens=aim)
    for name in ("ids", "bounds", "starts", "joined", "cuts"):
        one, other = getattr(made, name), getattr(built, name)
        assert one.dtype == other.dtype
        assert np.array_equal(one, other), name
    assert list(made.passages) == list(built.passages)
    question = "What did the Rabbit take out of its pocket?"
    one, other = (select(library, question, mode="auto", budget=300) for library in (made, built))
    assert one == other


def test_libraries_share_what_parts_derive() -> None:
    first = parts()[0]
    one, other = Library([first], small_tokenizer()), Library([first], small_tokenizer())
    assert one.ids is other.ids is first.ids
    assert one.joined is other.joined
    both = Library([first, first], small_tokenizer())
    assert one.cuts.dtype == both.cuts.dtype == one.ids.dtype  # compared without a copy of either


def test_a_part_without_tokens_counts_as_a_part() -> None:
    empty = TokenizedDocument.build(Document("empty.txt", "", "text"), small_tokenizer())
    assert (len(empty), bool(empty)) == (0, True)
    assert empty.cuts().tolist() == [0]


def test_passages_name_the_places_that_they_begin_and_end_in() -> None:
    pages = [f"Page {n} tells of the fox. " * 12 for n in range(1, 9)]
    text = "\n\n".join(pages)
    starts = [text.index(page) for page in pages]
    places = tuple(Place(start, f"page {n}") for n, start in enumerate(starts[1:], 2))
    document = Document("book.pdf", text, "pdf", places)
    library = Library.build([document], small_tokenizer(), passage_tokens=60)
    for passage in library.passages:
        begin = text.index(passage.text) + len(passage.text) - len(passage.text.lstrip())
        end = text.index(passage.text) + len(passage.text.rstrip()) - 1
        assert passage.first_place == document.place_at(begin)
        assert passage.last_place == document.place_at(end)
    assert library.passages[0].first_place is None
    assert library.passages[-1].last_place == "page 8"
    whole = library.span(0, library.num_tokens)
    assert (whole.first_place, whole.last_place) == (None, "page 8")


def test_keys_tell_name_and_text() -> None:
    tokenizer = small_tokenizer()
    documents = [("a", "bc"), ("ab", "c"), ("a", "bc ")]
    keys = [TokenizedDocument.build(Document(*each, "text"), tokenizer).key for each in documents]
    assert len({*keys}) == 3
    assert keys[0] == TokenizedDocument.build(Document("a", "bc", "other"), tokenizer).key
