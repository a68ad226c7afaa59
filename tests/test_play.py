"""The Next Token Game: what is asked, what it is worth, a model's guess, a whole game."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from cli_helpers import run_nazx, tiny_checkpoint
from pseudo_terminal import Terminal

from nazx_cli.engine.language_model import LanguageModel, load_model
from nazx_cli.errors import UsageError
from nazx_cli.game.guessing import Guess, Guesser, letters
from nazx_cli.game.match import Match, Player
from nazx_cli.game.words import Question, Story, choose, points, tales


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A tiny random model, a token a byte."""
    return load_model(tiny_checkpoint(tmp_path_factory.mktemp("game") / "tiny"))


# What is asked


def test_a_seed_chooses_a_game_in_the_tales() -> None:
    story, questions = choose(tales(), 10, 3)
    assert (story, questions) == choose(tales(), 10, 3)
    assert {choose(tales(), 10, seed)[1][0].before for seed in range(5)} > {questions[0].before}
    start = story.text.index(questions[0].before)
    for question in questions:
        assert story.text[start:].startswith(question.before + question.word)
        assert question.word.isalpha() and len(question.word) >= 3
        assert not story.text[start + len(question.before + question.word)].isalpha()
        assert question.before[-2:].strip() == question.before[-2]
    lengths = [len(question.before.split()) for question in questions]
    assert 80 < lengths[0] < 150
    assert all(30 < more - less < 100 for less, more in itertools.pairwise(lengths))


@pytest.mark.parametrize(
    ("text", "said"),
    [("too short " * 100, "rounds need a text of"), ("12 34 56 " * 1000, "too few words")],
)
def test_a_text_that_holds_no_game_is_told(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choose([Story("notes", text)], 10, 0)


@pytest.mark.parametrize(
    ("said", "word", "worth"),
    [
        ("giant", "giant", 10),
        (" Giant ", "giant", 10),
        ("walking", "walked", 5),
        ("cries", "cry", 5),
        ("castles", "castle", 5),
        ("princess", "prince", 5),
        ("the", "them", 5),
        ("candle", "castle", 0),
        ("cast", "castle", 5),
        ("cat", "castle", 0),
        ("th", "the", 0),
        ("", "the", 0),
    ],
)
def test_points(said: str, word: str, worth: int) -> None:
    assert points(said, word) == worth


# A model's guess


def by_hand(lm: LanguageModel, ids: Sequence[int], word: str) -> float:
    """The probability of ``word`` by the definition, from the logits of every position: among
    tokens that begin a word, then its letters, then any token that is no letter."""
    written = lm.tokenizer.encode(f" {word}")
    rows = lm.logits([*ids, *written])[len(ids) - 1 :].double()
    text = {i: lm.tokenizer.pieces[i] for i in range(lm.config.vocab_size)}
    begins = [i for i in text if text[i].startswith(" ")]
    chance = float(rows[0][begins].softmax(0)[begins.index(written[0])])
    for row, token in zip(rows[1:], written[1:], strict=False):
        chance *= float(row.softmax(0)[token])
    ends = [i for i in text if not text[i][0].isalpha()]
    return chance * float(rows[-1].softmax(0)[ends].sum())


@pytest.mark.parametrize("sees", [3, 20, None])
def test_a_model_gives_a_word_the_product_over_its_tokens_and_its_end(
    lm: LanguageModel, sees: int | None
) -> None:
    guesser = Guesser(lm, sees)
    text = "There was once a King and a Queen in Rousay who had three "
    for before, word in ((text, "daughters"), (f"{text}daughters and a ", "cow")):
        guess = guesser.guess(Question(before, word))
        ids = lm.tokenizer.encode(before.rstrip())
        seen = ids if sees is None else ids[-sees:]
        assert guess.chance == pytest.approx(by_hand(lm, seen, word), rel=1e-3)


def test_a_model_says_its_likeliest_letters_until_one_ends_the_word(lm: LanguageModel) -> None:
    question = Question("There was once a King and a ", "Queen")
    said = Guesser(lm, None).guess(question).word
    ids = [*lm.tokenizer.encode(question.before.rstrip()), *lm.tokenizer.encode(f" {said}")]
    start = len(ids) - len(said)
    best = lm.logits(ids).argmax(-1).tolist()
    # The first letter is the likeliest letter, the space before it being no word yet.
    assert ids[start + 1 :] == best[start : len(ids) - 1]
    goes_on = letters(lm.tokenizer, lm.config.vocab_size)[1]
    assert said.isalpha() or not said.isascii()
    assert not goes_on[best[-1]] or len(said) >= 14


# The match


class Says:
    """Always the same guess."""

    def __init__(self, word: str, chance: float) -> None:
        self.said = Guess(word, chance)

    def guess(self, question: Question) -> Guess:
        return self.said


class Stopped:
    """Ctrl-C while it thinks."""

    def guess(self, question: Question) -> Guess:
        raise KeyboardInterrupt


def test_everybody_is_scored_and_a_hint_halves() -> None:
    sure, far = (
        Player("sure", Says("giant", 0.9), "a", None),
        Player("far", Says("ox", 0.3), "a", 16),
    )
    match = Match([far, sure])
    question = Question("he saw a ", "giant")
    for said, hinted, worth in (("giant", False, 10), ("giant", True, 5), ("giants", True, 2)):
        turns = match.play(question, said, hinted=hinted)
        assert [turn.points for _, turn in turns] == [worth, 3, 10]
    assert [(p.name, p.points, p.right) for p in match.ranking()] == [
        ("sure", 30, 3),
        ("you", 17, 2),
        ("far", 9, 0),
    ]
    assert far.chance == pytest.approx(0.3)
    (line,) = match.worth()
    assert line.endswith(f"{math.log2(0.9 / 0.3):+.1f} bits a word")


def test_a_round_that_is_cut_short_counts_for_nobody() -> None:
    quick = Player("quick", Says("giant", 0.9))
    match = Match([quick, Player("slow", Stopped())])
    with pytest.raises(KeyboardInterrupt):
        match.play(Question("he saw a ", "giant"), "giant")
    assert (match.rounds, quick.turns, match.person.points) == (0, [], 0)


# The command


def test_without_a_terminal_there_is_no_game() -> None:
    out, err, code = run_nazx("play")
    assert (out, code) == ("", 2)
    assert err == "error: the game needs a terminal; next: run nazx play in one\n"


def test_a_whole_game_in_a_terminal(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(tmp_path / "tiny")
    seed, rounds = 5, 2
    words = [question.word for question in choose(tales(), rounds, seed)[1]]
    game = Terminal(
        "play", "-m", str(tiny), "--context", "16", "--context", "all",
        "--rounds", "2", "--seed", "5", rows=60, columns=100, timeout=300,
    )  # fmt: skip
    game.until("round 1 of 2")
    shown = game.until("the next word: *$")
    assert "____" in shown and "The Scottish Fairy Book" in shown
    game.send("?\r")
    game.until(f"it begins with {words[0][0]}")
    game.send(f"{words[0]}\r")
    shown = game.until("round 2 of 2(.*\n)*the next word: *$")
    assert f"the word is: {words[0]}" in shown
    assert any(line.split() == ["you", words[0], "+5", "5"] for line in shown.splitlines())
    game.send(f"{words[1]}\r")
    assert game.end() == 0
    assert f"the word is: {words[1]}" in game.text
    assert "2 of 2" in game.text and "what context was worth" in game.text
    assert "--seed 5" in game.text


def test_ctrl_c_before_the_first_word_is_an_interrupt(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(tmp_path / "tiny")
    game = Terminal("play", "-m", str(tiny), timeout=300)
    game.until("the next word: *$")
    game.send("\x03")
    assert game.end() == 130
