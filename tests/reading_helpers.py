"""Helpers of the tests about documents and reading: a tokenizer made on the spot, libraries."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from nazx_cli.documents.document import Document
from nazx_cli.reading.library import Library
from nazx_cli.tokenizer import Tokenizer

ALICE = Path(__file__).parent / "data" / "alice.txt"
FACTS = [
    f"The {animal} lives in the {place}. It eats {food} every morning and sleeps all the long day. "
    * 4
    for animal, place, food in [
        ("heron", "marsh", "frogs"),
        ("badger", "wood", "worms"),
        ("otter", "river", "trout"),
        ("falcon", "tower", "pigeons"),
    ]
]
"""A passage about each of four animals."""


@cache
def alice_text() -> str:
    return ALICE.read_text(encoding="utf-8")


@cache
def small_tokenizer(vocab: int = 2000) -> Tokenizer:
    """Byte-level BPE trained on Alice: many words take several tokens, as do most characters
    beyond ASCII."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(alice_text().split("\n\n"), trainer)
    return Tokenizer(backend)


def library_of(*texts: str, passage_tokens: int = 100, vocab: int = 2000) -> Library:
    """A library of documents named a.txt, b.txt, ..."""
    documents = [Document(f"{chr(97 + i)}.txt", text, "text") for i, text in enumerate(texts)]
    return Library.build(documents, small_tokenizer(vocab), passage_tokens=passage_tokens)


@cache
def alice() -> Library:
    document = Document("alice.txt", alice_text(), "text")
    return Library.build([document], small_tokenizer())
