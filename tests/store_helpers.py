"""What the tests of the session store share: states with something in every field."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
from cli_helpers import make_tokenizer
from reading_helpers import small_tokenizer

from nazx_cli.documents.document import Document, Origin, Place
from nazx_cli.reading.passages import Passage
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.session.saving.session_file import ModelTag
from nazx_cli.session.settings import SessionSettings, Wishes
from nazx_cli.session.state import History, Message, State, Turn

MODEL = ModelTag("tiny", "a" * 64, "b" * 64)
OTHER = ModelTag("other", "c" * 64, "d" * 64)
_ALPHABETS = (
    "abcdefghij  \n",
    "äöüßéèñçø ÅŁ",
    "αβγδ жзий שלום",
    "漢字かな交じり。",
    "😀👩‍👩‍👧🇩🇪́̈",
    "\0\x1b\x7f\t\r\ufeff\ud800\udfff",
)


def random_text(seed: int, length: int = 400) -> str:
    """Characters of every kind, in runs of a kind."""
    rng = random.Random(seed)
    text = ""
    while len(text) < length:
        text += "".join(rng.choices(rng.choice(_ALPHABETS), k=rng.randrange(1, 40)))
    return text


def encodable(text: str) -> str:
    """``text`` without the lone surrogates that no tokenizer takes."""
    return text.encode("utf-8", "ignore").decode()


def part_of(name: str, text: str, *, bytewise: bool = False, **fields: object) -> TokenizedDocument:
    tokenizer = make_tokenizer() if bytewise else small_tokenizer()
    return TokenizedDocument.build(Document(name, text, "text", **fields), tokenizer)  # type: ignore[arg-type]


def turn_of(number: int, text: str = "", confidence: float | None = None) -> Turn:
    """A turn with a value of its own in every field that all have."""
    passage = Passage("a.pdf", number, number + 1, 5, 9 + number, text, "page 1", "page 2")
    return Turn(
        f"question {number} {text}",
        Message("user", f"asked {number}", f"context {text}"),
        (passage, Passage("b.txt", 1, 2, 3, 4, "plain")),
        f"answer {number} {text}",
        interrupted=bool(number % 2),
        confidence=confidence,
    )


def state_of(*parts: TokenizedDocument, turns: int = 2, seed: int = 0) -> State:
    """A state with something other than the default in every field."""
    return State(
        parts,
        History(tuple(turn_of(n, random_text(seed + n)) for n in range(turns)), 1, 1),
        SessionSettings(
            f"system {random_text(seed)}",
            4096,
            77,
            Wishes(0.7, 5, 0.9, 0.05, 1.1, 2**62 + 1),
            "recall",
        ),
    )


def full_state(seed: int = 0) -> State:
    """A state with documents of several kinds."""
    text = encodable(random_text(seed))
    return state_of(
        part_of(f"a{seed}.txt", text, origin=Origin("/tmp/a.txt", "e" * 64, 12, 2**62 + 1)),
        part_of("b.pdf", text[::-1], places=(Place(0, "page 1"), Place(7, "page “2”"))),
        part_of("bytes.txt", text, bytewise=True),
        part_of("empty.txt", ""),
        part_of("caf\udce9.txt", "no UTF-8 in the name"),
        seed=seed,
    )


def assert_same(one: State, other: State) -> None:
    """The states are equal down to the last token."""
    assert one.history == other.history
    assert one.settings == other.settings
    assert len(one.documents) == len(other.documents)
    for a, b in zip(one.documents, other.documents, strict=True):
        assert a.document == b.document
        assert a.ids.dtype == b.ids.dtype == a.starts.dtype == b.starts.dtype == np.int32
        assert np.array_equal(a.ids, b.ids)
        assert np.array_equal(a.starts, b.starts)


def python(code: str, *arguments: str) -> list[str]:
    """A command that runs ``code`` with the tests' own modules at hand."""
    here = Path(__file__).parent
    paths = [str(here), str(here.parent)]
    return [sys.executable, "-c", f"import sys; sys.path[:1] = {paths!r}\n{code}", *arguments]
