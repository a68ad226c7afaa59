from __future__ import annotations

import random

import numpy as np
import pytest
from reading_helpers import alice, alice_text, library_of, small_tokenizer

from nazx_cli.reading.tokenized import joined_tokens
from nazx_cli.reading.words import WORD


def test_the_library_keeps_every_token_in_order() -> None:
    library = library_of("One fish.", "Two fish, red fish.")
    tokenizer = small_tokenizer()
    first, second = tokenizer.encode("One fish."), tokenizer.encode("Two fish, red fish.")
    assert library.ids.tolist() == first + second
    assert library.ids.dtype == np.int32
    assert tuple(map(len, library.documents)) == (len(first), len(second))
    assert library.num_tokens == len(first) + len(second)


def test_progress_counts_the_characters_of_all_documents() -> None:
    from nazx_cli.documents.document import Document
    from nazx_cli.reading.library import Library

    told: list[tuple[int, int]] = []
    documents = [Document("a", "x" * 10, "text"), Document("b", "y" * 5, "text")]
    Library.build(documents, small_tokenizer(), lambda done, of: told.append((done, of)))
    assert told == [(10, 15), (15, 15)]


@pytest.mark.parametrize("aim", [1, 2, 7, 100, 200, 100_000])
def test_passages_cover_everything_once(aim: int) -> None:
    text = alice_text()[:20_000]
    library = library_of(text, "Another.\n\nAnd more.", passage_tokens=aim)
    passages = list(library.passages)
    assert [p.start for p in passages] == [0, *(p.stop for p in passages[:-1])]
    assert passages[-1].stop == library.num_tokens
    assert "".join(p.text for p in passages if p.document == "a.txt") == text
    assert max(len(p) for p in passages) <= max(1, int(aim * 1.2))


def test_passages_are_about_as_long_as_asked() -> None:
    lengths = [len(p) for p in alice().passages]
    assert min(lengths) >= 60
    assert 85 <= np.mean(lengths) <= 115


def test_passages_name_the_lines_they_stand_on() -> None:
    lines = alice_text().split("\n")
    for passage in alice().passages:
        first, last = lines[passage.first_line - 1], lines[passage.last_line - 1]
        shown = passage.text.strip().split("\n")
        assert shown[0] in first
        assert shown[-1] in last
        assert passage.opening.split()[0] in first


def test_cuts_fall_on_paragraphs_then_lines_then_sentences() -> None:
    paragraphs = library_of("\n\n".join(["The cat sat. It ran away."] * 40), passage_tokens=30)
    assert all(p.text.startswith("\n\nThe cat") for p in paragraphs.passages[1:]) or all(
        p.text.lstrip().startswith("The cat") for p in paragraphs.passages
    )
    sentences = library_of("It was the cat that sat there. " * 40, passage_tokens=30)
    assert all(p.text.strip().startswith("It was") for p in sentences.passages)
    unspaced = library_of("猫坐在那里。" * 40, passage_tokens=30)
    assert all(p.text.startswith("猫") for p in unspaced.passages)


def test_a_word_longer_than_a_passage_is_cut_all_the_same() -> None:
    library = library_of("x" * 5000, passage_tokens=20)
    assert "".join(p.text for p in library.passages) == "x" * 5000
    assert len(library.passages) > 10


@pytest.mark.parametrize("text", ["", " ", "\n", "a", "é", "\U0001f600", "\n\n\n\n"])
def test_tiny_documents_have_at_most_one_passage(text: str) -> None:
    library = library_of(text)
    assert [p.text for p in library.passages] == ([text] if text else [])
    for passage in library.passages:
        assert 1 <= passage.first_line <= passage.last_line


def test_an_empty_library_has_no_passages() -> None:
    library = library_of()
    assert (library.num_tokens, len(library.passages), list(library.passages)) == (0, 0, [])


def test_passages_act_as_a_sequence() -> None:
    passages = alice().passages
    assert passages[-1] == list(passages)[-1]
    assert passages[2:4] == [passages[2], passages[3]]
    with pytest.raises(IndexError):
        passages[len(passages)]


def test_merging_joins_neighbours_but_not_documents() -> None:
    library = library_of("One. " * 100, "Two. " * 100, passage_tokens=50)
    merged = library.merged(reversed(library.passages))
    assert [p.text for p in merged] == ["One. " * 100, "Two. " * 100]
    first, third = library.passages[0], library.passages[2]
    assert library.merged([third, first]) == [first, third]


def test_a_span_never_reaches_into_another_document() -> None:
    library = library_of("One two three.", "Four five six.")
    with pytest.raises(ValueError, match="no stretch"):
        library.span(0, library.num_tokens)


def test_joined_tokens_are_those_that_begin_inside_a_word() -> None:
    rng = random.Random(3)
    for _ in range(200):
        text = "".join(rng.choices("ab é'-\n1兔子", k=rng.randrange(30)))
        tokens = small_tokenizer().encode_document(text)
        inside = {i for m in WORD.finditer(text) for i in range(m.start() + 1, m.end())}
        begun: set[int] = set()
        for start, joined in zip(
            tokens.starts.tolist(), joined_tokens(text, tokens.starts), strict=True
        ):
            in_word = start in inside or (start in begun and WORD.match(text[start]) is not None)
            assert bool(joined) == in_word, (text, start)
            begun.add(start)
