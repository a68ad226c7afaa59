from __future__ import annotations

import random
import re
import time

import numpy as np
import pytest
from reading_helpers import alice, library_of

from nazx_cli.reading.library import Library
from nazx_cli.reading.plan import select
from nazx_cli.reading.recall import occurrences, question_terms, rank
from nazx_cli.reading.words import LONGEST_SUFFIX, related_stems, stem, words

_WORD = re.compile(
    r"[\u0e00-\u0eff\u3040-\u30ff\u4e00-\u9fff]|[^\W_\u0e00-\u0eff\u3040-\u30ff\u4e00-\u9fff]+"
)


def reference(library: Library, target: str) -> list[int]:
    """Tokens in which a word with the stem ``target`` begins, read off the text."""
    found: set[int] = set()
    for d, document in enumerate(library.documents):
        first, end = int(library.bounds[d]), int(library.bounds[d + 1])
        starts = library.starts[first:end].tolist()
        for match in _WORD.finditer(document.text):
            if stem(match.group().casefold()) == target:
                last = max(s for s in starts if s <= match.start())
                found.add(first + starts.index(last))
    return sorted(found)


def random_text(rng: random.Random) -> str:
    pieces = ["cat", "Cats", "CAT", "caterpillar", "stop", "stopped", "Stopping", "try", "tries"]
    pieces += ["naïve", "Ünder", "don't", "a", "x1", "1865", "兔子", "兔", "ß", "Straße", "_em_"]
    pieces += ["foo-bar", "foo", "it's", "👩‍🚀", "jurymen", "zyzzyva", "Zyzzyvas", "e\u0301t"]
    gaps = [" ", "\n", "\n\n", ", ", "—", "", "'", ". ", "_"]
    return "".join(rng.choice(pieces) + rng.choice(gaps) for _ in range(rng.randrange(40)))


@pytest.mark.parametrize("vocab", [256, 400, 2000])
def test_words_are_found_where_the_text_has_them(vocab: int) -> None:
    rng = random.Random(vocab)
    for _ in range(120):
        texts = [random_text(rng) for _ in range(rng.randrange(1, 3))]
        library = library_of(*texts, vocab=vocab)
        targets = {stem(w) for text in texts for w in words(text)} | {"absent", "c", "ca", "zyzz"}
        for target in targets:
            assert library.matcher.find(target).tolist() == reference(library, target), (
                target,
                texts,
            )


def test_words_of_a_whole_book_are_found() -> None:
    text = alice().documents[0].text
    for target in ("alic", "rabbit", "jurymen", "caterpillar", "i", "the", "tart", "waistcoat"):
        expected = sum(stem(w) == target for w in words(text))
        assert len(alice().matcher.find(target)) == expected > 0


@pytest.mark.parametrize("every", (1, 3, 40, 10_000))
def test_words_are_counted_passage_by_passage_rare_or_common(every: int) -> None:
    """More of them than passages, as many, fewer, and none."""
    said = ["fox" if at % every == every - 1 else f"w{at}" for at in range(3_000)]
    library = library_of(" ".join(said), "No such word.\n" * 40)
    tally = library.matcher.tally("fox")
    places = reference(library, "fox")
    own = [sum(cut <= at for cut in library.cuts) - 1 for at in places]
    assert tally.passages.tolist() == sorted(set(own)) and tally.passages.dtype == np.int32
    assert tally.counts.tolist() == [own.count(passage) for passage in sorted(set(own))]
    assert (tally.total, tally.holding) == (len(places), len(set(own)))


def test_stems_keep_the_beginning_of_the_word() -> None:
    rng = random.Random(5)
    endings = ["", "s", "es", "ies", "ed", "ied", "ing", "ingly", "ly", "e", "pped", "ss", "i"]
    for _ in range(20_000):
        word = "".join(rng.choices("abeiopsty", k=rng.randrange(1, 7))) + rng.choice(endings)
        got = stem(word)
        assert got
        assert word.startswith(got[:-1])
        assert len(word) <= len(got) + LONGEST_SUFFIX


@pytest.mark.parametrize(
    "forms",
    [
        "stop stops stopped stopping",
        "cry cries cried crying",
        "make makes making made",
        "tart tarts",
        "wish wishes wished",
        "steal stole stolen stealing steals",
        "child children",
        "juryman jurymen",
    ],
)
def test_forms_of_a_word_are_found_by_each_other(forms: str) -> None:
    library = library_of(forms)
    for word in forms.split():
        (term,) = question_terms(word)
        assert len(occurrences(library, term)) == len(forms.split()), word


def test_unrelated_words_are_kept_apart() -> None:
    for one, other in [("cat", "caterpillar"), ("king", "kin"), ("sing", "s"), ("bus", "bu")]:
        assert not related_stems(one) & related_stems(other)


def test_the_passage_with_the_rare_word_comes_first() -> None:
    filler = "The people walked along the road and talked of the weather. " * 8
    texts = [filler] * 9
    texts[6] += "A walrus sat there. "
    library = library_of("\n\n".join(texts))
    best = library.passages[int(rank(library, "Where did the walrus sit?").order[0])]
    assert "walrus" in best.text


def test_words_close_together_count_more() -> None:
    gap = "and then they went on and on for a long time until at last the evening came to them "
    apart = f"The golden day was over. {gap} A key was there. "
    near = f"The golden key was there. {gap} A day was over. "
    filler = "Nothing of note took place in the village that whole winter long, people say. " * 12
    library = library_of(apart, filler, near)
    ranking = rank(library, "golden key")
    assert library.passages[int(ranking.order[0])].document == "c.txt"


def test_words_about_the_same_thing_lend_weight_but_less_than_the_word_itself() -> None:
    filler = "Nothing of note took place in the village that whole winter long, people say. " * 8
    kindred = filler + "They read the accusation and then the verdict."
    itself = filler + "They spoke of the trial."
    library = library_of(filler, kindred, filler, itself)
    order = [library.passages[int(i)].text for i in rank(library, "trial").order]
    assert "trial" in order[0]
    assert any("accusation" in text for text in order[1:3])


def test_a_script_without_spaces_is_searched_by_character() -> None:
    library = library_of("昔々、山に狐がいた。" * 20, "海に大きな魚がいた。" * 20)
    best = library.passages[int(rank(library, "魚はどこ?").order[0])]
    assert best.document == "b.txt"


@pytest.mark.parametrize(
    "text", ["魚が" * 100_000, "ßé" * 100_000, "ß é " * 50_000, "e\u0301" * 100_000]
)
def test_characters_split_between_tokens_are_looked_at_once(text: str) -> None:
    library = library_of("Here is a fox. " + text, vocab=256)
    begun = time.process_time()
    assert len(library.matcher.find("fox")) == 1
    assert time.process_time() - begun < 5


def test_a_document_lends_nothing_to_its_neighbour() -> None:
    filler = "Nothing of note took place in the village that whole winter long. " * 5
    library = library_of(filler + "The walrus.", filler, filler + filler)
    ranking = rank(library, "walrus")
    others = [i for i, p in enumerate(library.passages) if p.document != "a.txt"]
    assert not ranking.scores[others].any()


@pytest.mark.parametrize("question", ["", "?!", "the", "zzzzqqq", "x" * 1000])
def test_a_question_that_names_nothing_still_ranks(question: str) -> None:
    ranking = rank(alice(), question)
    assert sorted(ranking.order.tolist()) == list(range(len(alice().passages)))
    assert np.isfinite(ranking.scores).all()


def test_a_word_of_very_many_tokens_is_found() -> None:
    rng = random.Random(4)
    key = "".join(rng.choice("0123456789abcdef") for _ in range(3000))
    library = library_of(f"The cat sat. The key is {key}, said the cat.", f"No {key}ing here.")
    assert library.num_tokens > 3000
    assert occurrences(library, question_terms(key)[0]).tolist() == reference(library, stem(key))
    assert library.matcher.begins(key[:2500]) and not library.matcher.begins(f"{key[:2500]}x")


def test_an_empty_library_ranks_nothing() -> None:
    assert len(rank(library_of(), "anything").order) == 0
    assert len(rank(library_of("one"), "one").order) == 1


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Who is on trial, and what for?", "The Knave of Hearts, he stole those tarts"),
        ("Who stole the tarts?", "The Knave of Hearts, he stole those tarts"),
        ("Why is a raven like a writing-desk?", "raven like a writing-desk"),
        ("Why are the gardeners painting the roses?", "ought to have been a red rose-tree"),
        ("What did the Dodo give Alice as a prize?", "this elegant thimble"),
        ("What subjects did the Mock Turtle study at school?", "Reeling and Writhing"),
    ],
)
def test_the_passage_that_answers_is_among_those_chosen(question: str, answer: str) -> None:
    chosen = select(alice(), question, mode="auto", budget=1200)
    assert any(answer in passage.text for passage in chosen.passages)
