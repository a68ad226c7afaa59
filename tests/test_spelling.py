"""Slips of the pen in questions: which words of the documents they stand for, and what is asked."""

from __future__ import annotations

import random
import time
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from cli_helpers import ScriptedModel
from reading_helpers import alice_text, library_of, small_tokenizer
from test_index_library import stored

from nazx_cli.documents.document import Document
from nazx_cli.reading.grounding import Ordinary
from nazx_cli.reading.library import Library
from nazx_cli.reading.spelling import mended, slips
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.reading.words import related_stems, stem, words
from nazx_cli.session.events import Answer, Notice
from nazx_cli.session.session import Session

VOCAB = 8000  # enough of Alice's words are tokens of their own to tell what is ordinary
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TALE = (
    "Saint Lawrence asked the giant Wind-and-Weather for his name. The ISAAC NEWTON sailed on, and "
    "three caterpillars and the Canonbie dozed beneath. "
)


@cache
def tale(text: str = TALE) -> tuple[Library, Ordinary]:
    library = library_of(text, vocab=VOCAB)
    return library, Ordinary(library.tokenizer)


def distance(one: str, two: str) -> int:
    """How many letters have to be put in, left out, changed or swapped with their neighbours."""
    rows = [list(range(len(two) + 1))]
    for i, a in enumerate(one, 1):
        rows.append([i])
        for j, b in enumerate(two, 1):
            least = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (a != b))
            if i > 1 and j > 1 and one[i - 2 : i] == two[j - 2 : j][::-1]:
                least = min(least, rows[i - 2][j - 2] + 1)
            rows[i].append(least)
    return rows[-1][-1]


@pytest.mark.parametrize(
    ("question", "meant"),
    [
        ("Where did St. Lawerence go?", {"Lawerence": "Lawrence"}),
        ("where did st. lawerence go?", {"lawerence": "Lawrence"}),
        ("Who was Issac Netwon?", {"Issac": "Isaac", "Netwon": "Newton"}),
        ("What did the Catepillars do?", {"Catepillars": "Caterpillars"}),
        ("What did the cattepillars do?", {}),  # two slips
        ("What did Tanonbie do?", {}),  # the first letter is another
        ("What did the saint ask?", {}),
        ("Who was the gaint?", {"gaint": "giant"}),
        ("Who was Giants' wife?", {}),  # a form of it
        ("Did they doze?", {}),
        ("Who is Nweton2?", {}),
        ("Qui est Néwton?", {}),
        ("Who asked why?", {}),
        ("Which nmae?", {}),  # too short
        ('Where did "St. Lawerence" go, and “Newtno”?', {}),
        ('Where did "Lawrence go, Netwon?', {"Netwon": "Newton"}),
        ("", {}),
    ],
)
def test_words_that_are_one_slip_from_one_of_the_documents(
    question: str, meant: dict[str, str]
) -> None:
    assert slips(*tale(), question) == meant


def test_what_is_too_long_for_a_word_is_left_alone() -> None:
    begun = time.process_time()
    assert slips(*tale(), f"Who is Netwon in {'acgt' * 5000}?") == {"Netwon": "Newton"}
    assert time.process_time() - begun < 5


def test_common_words_are_what_their_writer_meant() -> None:
    library, ordinary = tale("The hattery and the mouth of the trout, said Alicia. ")
    assert ordinary.has("mouse", whole=True) and ordinary.is_name("Alice")
    assert slips(library, ordinary, "What did the mouse say to Alice?") == {}
    assert slips(library, ordinary, "Where is the hattry?") == {"hattry": "hattery"}


def test_documents_in_another_language_are_left_alone() -> None:
    german = "Der Müller wohnte am Bach und hatte einen Esel, den er Donnerwetter nannte. "
    assert slips(*tale(german * 5), "Wo wohnt der Müller mit Donnerweter?") == {}
    assert slips(*tale(german + "In the mill, said the miller. " * 5), "Donnerweter?") != {}


def test_a_tokenizer_that_cannot_tell_what_is_common_finds_none() -> None:
    library = library_of(TALE, vocab=300)
    assert slips(library, Ordinary(library.tokenizer), "Where did Lawerence go?") == {}


def test_the_words_of_a_book_are_found_again_and_no_others() -> None:
    text = alice_text()
    library, ordinary = tale(text)
    counts = Counter(words(text))
    rng = random.Random(5)
    found = 0
    for word in rng.sample(sorted(w for w in counts if len(w) > 5 and w.isascii()), 150):
        at = rng.randrange(1, len(word))
        typed = rng.choice(
            [
                word[:at] + word[at + 1 :],
                word[:at] + rng.choice(LETTERS) + word[at:],
                word[:at] + rng.choice(LETTERS) + word[at + 1 :],
                word[:at] + word[at : at + 2][::-1] + word[at + 2 :],
            ]
        )
        known = any(library.matcher.has(each) for each in related_stems(typed))
        told = slips(library, ordinary, typed)
        if known or ordinary.has(typed, whole=True) or ordinary.is_name(typed) or len(typed) < 5:
            assert told == {}
            continue
        near = [w for w in counts if w[0] == typed[0] and distance(w, typed) == 1]
        if not near:
            assert told == {}  # the slip undid itself in another way, or none is near
            continue
        stands = Counter[str]()
        for each, count in counts.items():
            stands[stem(each)] += count
        meant = told[typed].casefold()
        assert distance(meant, typed) == 1
        assert stands[stem(meant)] == max(stands[stem(each)] for each in near)
        found += 1
    assert found > 100


def test_documents_on_disk_are_searched_as_well(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    document = TokenizedDocument.build(Document("alice.txt", alice_text(), "text"), tokenizer)
    library = Library.of(stored(tmp_path, [document], 1, random.Random(0)), tokenizer)

    class Ordinaries(Ordinary):
        def __bool__(self) -> bool:
            return True

    found = slips(library, Ordinaries(tokenizer), "Who is the Gryphpon, and the Dormuose?")
    assert found == {"Gryphpon": "Gryphon", "Dormuose": "Dormouse"}


def test_only_whole_words_are_put_right() -> None:
    found = {"gaint": "giant", "he": "she"}
    assert mended("The gaint, gaints; he Gaint?", found) == "The giant, gaints; she Gaint?"


def asked(chat: Session, question: str) -> tuple[list[str], Answer]:
    events = list(chat.ask(question))
    answer = events[-1]
    assert isinstance(answer, Answer)
    return [event.text for event in events if isinstance(event, Notice)], answer


@pytest.mark.parametrize("can_cite", [True, False])
def test_the_question_is_asked_as_it_was_meant_and_that_is_told(
    can_cite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ordinary, "_ids", {"which": 0})
    said = ["To the church."] * 4 + ["To Lawerence."] * 2
    lm = ScriptedModel([f"[1] {s}|-0.1" if can_cite else s for s in said], can_cite=can_cite)
    document = Document("tale.txt", TALE, "text")
    chat = Session(lm, Library.build([document], lm.tokenizer))  # type: ignore[arg-type]
    notices, answer = asked(chat, "Where did Saint Lawerence go?")
    assert notices == ['the documents have no "Lawerence": taken for "Lawrence"']
    assert answer.text == "To the church."
    assert "Where did Saint Lawrence go?" in lm.prompts[0] and "Lawerence" not in lm.prompts[0]
    assert chat.turns[0].question == "Where did Saint Lawrence go?"
    notices, _ = asked(chat, "Which churhc?")
    assert notices == []  # it is near a word of the conversation alone
    notices, _ = asked(chat, "Did Lawerence sail?")
    assert len(notices) == 1  # as typed before, and as wrong
    lm.answers = lm.answers[-1:] * 2
    asked(chat, "Where did Saint Lawrence sail?")
    notices, _ = asked(chat, "Did Lawerence ask?")
    assert notices == []  # an answer had it
