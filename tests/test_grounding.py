"""Names and numbers of an answer: which fit the documents, and what comes in place of others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from chat_helpers import scripted
from cli_helpers import ScriptedModel
from models import model, random_ids
from reading_helpers import alice, alice_text, library_of, small_tokenizer

from nazx_cli.documents.document import Document
from nazx_cli.engine.grounding import PENALTY
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.engine.sampler import Sampler
from nazx_cli.engine.sampling import Sampling
from nazx_cli.reading.grounding import DocumentGrounding, Ordinary, strange_names
from nazx_cli.reading.library import Library
from nazx_cli.reading.words import WORD
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings

VOCAB = 8000  # enough of Alice's words are tokens of their own to tell what is ordinary
TALE = (
    "The miller Tom Tulliver had three sons and 1865 sacks of corn. His wife was the sister of "
    "Queen Mathilda, who kept flamingoes. In the eighteenth year the seventeen of them went to "
    "the sea, and the old king said that it was well, and that they should come again. "
)
GERMAN = "Der Müller und seine Frau hatten ein Haus am Bach, einen Esel und einen alten Hund. " * 3


@cache
def grounding(document: str = TALE, question: str = "What did they do?") -> DocumentGrounding:
    library = library_of(document, vocab=VOCAB)
    return DocumentGrounding(library, Ordinary(library.tokenizer), [question])


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("Who is Captain Nemo?", ("Nemo",)),
        ("Did Tom see Nemo?", ()),
        ("What is the name of Sherlock Holmes's brother?", ("Sherlock", "Holmes")),
        ("Who is Mr. Darcy's wife, old Darcy's?", ("Darcy",)),
        ("Did the Queen of Spain come?", ("Spain",)),
        ("Where is the King?", ()),
        ("Where is the Emperor?", ()),
        ("Where did St.Lawrence go?", ("Lawrence",)),
        ("Who kept the Flamingo?", ()),
        ("who is captain nemo?", ()),
        ("Nemo went where? Who came? What was said?", ()),
        ("What did I say?", ()),
        ("What is the point of Tale.TXT?", ()),
        ("", ()),
    ],
)
def test_names_that_the_documents_do_not_have(question: str, names: tuple[str, ...]) -> None:
    library = Library.build([Document("tale.txt", TALE, "text")], small_tokenizer(VOCAB))
    assert strange_names(library, question) == names


def test_where_a_capital_tells_no_name_none_is_strange() -> None:
    assert strange_names(library_of(GERMAN, vocab=VOCAB), "What is a Kapitän?") == ()


def strange(text: str, held_to: DocumentGrounding) -> list[str]:
    """The tokens of an answer that do not fit."""
    tokenizer = small_tokenizer(VOCAB)
    answer, found = held_to.begin(), []
    for token in tokenizer.encode(f"{text}\n"):
        if not answer.fits(token):
            found.append(tokenizer.decode([token]).strip())
        answer.take(token)
    return found


@pytest.mark.parametrize(
    "text",
    (
        "Tom Tulliver.",
        "Mathilda's sons, and TOM.",
        "It was the Queen's sister, Mathilda.",
        "Flamingoes, and one flamingo.",
        "1865 sacks, and 17 of them, and 3 sons.",
        "1. Corn\n2. Sons\n3. Sacks\n4. Sea\n5. King\n6. Wife\n7. Year\n8. Well\n9. Old\n10. Come",
        "[12] The miller.",
        "Yes, because they went, and the King Said so. Nobody laughed.",
        "`Alice` and ```python\nclass Alice:\n    year = 1999\n``` are code.",
        "See notes_Alice.txt.",
        "Алиса пошла. И Алиса.",
        "アリスは海に行った。",
    ),
)
def test_names_and_numbers_of_the_documents_fit_and_so_does_what_is_none(text: str) -> None:
    assert strange(text, grounding()) == []


@pytest.mark.parametrize(
    ("text", "token"),
    (
        ("It was Alice.", "Alice"),
        ("Alice.", "Alice"),
        ("They saw Grimjack.", "m"),
        ("Flameoes.", "oes"),
        ("In 1866 it was.", "6"),
        ("He had 99 of them.", "9"),
        ("Tom Tullivant went.", "ant"),
        ("It was in Zanzibar.", "an"),
    ),
)
def test_other_names_and_numbers_do_not(text: str, token: str) -> None:
    found = strange(text, grounding())
    assert len(found) == 1 and found[0].startswith(token), found


def test_an_unfinished_name_may_not_end() -> None:
    assert strange("They saw Mathil, and Mathil.", grounding()) == [","]  # once said, it goes free


def test_what_was_said_and_the_names_of_files_are_known() -> None:
    library = library_of(TALE, vocab=VOCAB)
    said = ["Did Gryphons come in 1999?", "You are Alice.", "notes/Dormouse.txt"]
    held_to = DocumentGrounding(library, Ordinary(library.tokenizer), said)
    assert strange("A Gryphon and Alice, in 1999, as Dormouse tells.", held_to) == []


def test_numbers_that_are_reckoned_go_free() -> None:
    assert strange("It is 1882.", grounding(question="What is the total?")) == []


def test_where_every_noun_has_a_capital_no_name_can_be_told() -> None:
    held_to = grounding(GERMAN, "Wer hatte ein Haus?")
    assert strange("Der Esel und die Katze im Garten, 1999.", held_to) == ["9"]  # a number can be


def test_an_answer_in_another_language_goes_free() -> None:
    text = "Là est la maison de Pierre, dans le bois."
    assert strange(text, grounding(question="Dans quel endroit vivait donc le vieux roi?")) == []


def test_every_beginning_of_a_word_is_found_and_no_other() -> None:
    """Against a plain look through all words, by tokens that split most of them."""
    library = alice()
    spelled = sorted(set(WORD.findall(alice_text())))
    folded = [word.casefold() for word in spelled]
    for word in spelled[::23]:
        for end in range(1, len(word) + 1):
            for start in (word[:end], word[:end] + "q", word[:end].swapcase()):
                either = any(other.startswith(start.casefold()) for other in folded)
                exact = any(other.startswith(start) for other in spelled)
                assert library.matcher.begins(start) == either
                assert library.matcher.begins(start, spelled=True) == exact


class Without:
    """Holds an answer to having none of some tokens; remembers what was taken."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = frozenset(tokens)
        self.taken: list[int] = []

    def begin(self) -> Without:
        return self

    def fits(self, token: int) -> bool:
        return token not in self.tokens

    def take(self, token: int) -> None:
        self.taken.append(token)


def test_what_does_not_fit_loses_against_the_next_likeliest_that_does() -> None:
    logits = torch.tensor([1.0, 3.0, 2.5, 2.0])
    held_to = Without([1, 2])
    assert Sampler(Sampling(), held_to).choose(logits) == 3
    assert held_to.taken == [3]


def test_what_is_far_likelier_stays() -> None:
    logits = torch.tensor([0.0, PENALTY + 0.1, -1.0])
    assert Sampler(Sampling(), Without([1])).choose(logits) == 1
    assert Sampler(Sampling(), Without([1])).choose(logits - torch.tensor([0, 0.2, 0])) == 0


def test_draws_have_the_odds_of_what_does_not_fit_lowered() -> None:
    logits = torch.tensor([0.0, 1.0, 0.5, -2.0])
    sampler = Sampler(Sampling(temperature=1.0, seed=3), Without([1, 2]))
    counts = Counter(sampler.choose(logits) for _ in range(20_000))
    weights = torch.tensor([1.0, math.exp(-PENALTY), math.exp(-PENALTY), 1.0])
    wanted = (logits.softmax(0) * weights) / (logits.softmax(0) * weights).sum()
    for token, share in enumerate(wanted.tolist()):
        deviation = math.sqrt(share * (1 - share) / 20_000)
        assert counts[token] / 20_000 == pytest.approx(share, abs=4 * deviation)


def test_a_seed_draws_the_same_where_all_fits() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(2))
    runs = []
    for held_to in (None, Without([])):
        sampler = Sampler(Sampling(temperature=1.0, seed=9), held_to)
        runs.append([sampler.choose(logits) for _ in range(20)])
    assert runs[0] == runs[1]


def lowered(lm: LanguageModel, ids: list[int], barred: Sequence[int], count: int) -> list[int]:
    """Greedy decoding on all logits, those of ``barred`` tokens lowered."""
    out = list(ids)
    for _ in range(count):
        logits = lm.logits(out)[-1]
        logits[list(barred)] -= PENALTY
        out.append(int(logits.argmax()))
    return out[len(ids) :]


@pytest.mark.parametrize("kind", ("inattention", "windowed", "full"))
def test_every_kind_of_model_is_held_to_it(kind: str) -> None:
    lm, ids = model("llama", kind), random_ids(9, seed=5)

    def said(held_to: Without | None) -> list[int]:
        context = lm.new_context()
        context.append(ids)
        steps = lm.generate(context, max_tokens=9, stop_ids=frozenset(), grounding=held_to)
        return [step.token for step in steps]

    barred = said(None)
    held_to = Without(barred)
    assert said(held_to) == held_to.taken == lowered(lm, ids, barred, 9) != barred


def test_answers_side_by_side_are_held_to_it() -> None:
    lm, prompts = model("llama", "windowed"), [random_ids(6, seed=6), random_ids(9, seed=7)]
    free = lm.answer_each(prompts, max_tokens=6)
    barred = [token for candidate in free for token in candidate.tokens]
    held = lm.answer_each(prompts, max_tokens=6, grounding=Without(barred))
    assert [list(c.tokens) for c in held] == [lowered(lm, ids, barred, 6) for ids in prompts]
    assert [c.tokens for c in held] != [c.tokens for c in free]


@pytest.mark.parametrize("cites", (False, True))
def test_answers_about_documents_are_grounded_unless_that_is_off(cites: bool) -> None:
    lm = ScriptedModel(["Tom.|-0.1"] * 12, can_cite=cites)
    library = Library.build([Document("tale.txt", TALE, "text")], lm.tokenizer)
    asked = []
    for held in (True, False):
        chat = Session(lm, library, SessionSettings(grounding=held))  # type: ignore[arg-type]
        list(chat.ask("Who is the miller?"))
        asked.append(set(lm.grounded))
        lm.grounded.clear()
    list(Session(lm).ask("Who is the miller?"))  # type: ignore[arg-type]
    assert [*asked, set(lm.grounded)] == [{True}, {False}, {False}]


def test_a_chat_turns_it_off_and_on(tmp_path: Path) -> None:
    document = tmp_path / "tale.txt"
    document.write_text(TALE)
    talk = scripted("Tom.", "Tom.")
    talk(f"/read {document}")
    assert "off" in talk("/set parameter grounding off")
    talk("Who is the miller?")
    talk("/set parameter grounding on")
    talk("Who is the miller?")
    assert talk.lm.grounded == [False, True]
    assert "neither on nor off" in talk("/set parameter grounding perhaps")
