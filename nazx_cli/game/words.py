"""What is played on: stories, and the words in them that are asked for."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nazx_cli.errors import UsageError
from nazx_cli.reading.words import stem

TALES = Path(__file__).parent / "tales.txt"
ABOUT_TALES = "from E. Grierson, The Scottish Fairy Book, 1910; in the public domain"

RIGHT, HALF = 10, 5
"""Points for the word, and for one that is nearly it."""

_LEAD = 100  # words to read before the first question
_STEP = 60  # and from one to the next, more or less ...
_JITTER = 12  # ... by up to so many
_ALIKE = 3  # first letters that two words have to share, at least
# Letters alone, in the middle of a sentence: whoever guesses knows that a word of this kind comes.
_ASKED = re.compile(r"(?<=[^\W\d_] )[^\W\d_]{3,}(?![\w'’-])")
_PARAGRAPH = re.compile(r"\n\s*\n\s*")


@dataclass(frozen=True)
class Story:
    """A text under its title."""

    title: str
    text: str


@dataclass(frozen=True)
class Question:
    """A word, and all of the text before it from where the game begins."""

    before: str
    word: str


def tales() -> list[Story]:
    """The stories that come with NazX. They are of data that it is never trained on."""
    parts = TALES.read_text(encoding="utf-8").split("# ")[1:]
    return [Story(*part.strip().split("\n\n", 1)) for part in parts]


def choose(stories: Sequence[Story], rounds: int, seed: int) -> tuple[Story, list[Question]]:
    """A story that is long enough, and what is asked in it: some ``_STEP`` words apart, from the
    beginning of one of its paragraphs on.

    ``UsageError`` where none is long enough. Equal arguments choose the same.
    """
    rng = random.Random(seed)
    needed = _LEAD + rounds * (_STEP + _JITTER)
    begins = [
        (story, at)
        for story in stories
        for at in (0, *(found.end() for found in _PARAGRAPH.finditer(story.text)))
        if len(story.text[at:].split(None, needed)) > needed
    ]
    if not begins:
        raise UsageError(
            f"{rounds} rounds need a text of {needed:,} words at least, this is shorter",
            "name a longer --file, or fewer --rounds",
        )
    story, at = rng.choice(begins)
    questions = _questions(story.text[at:], rounds, rng)
    if len(questions) < rounds:
        raise UsageError(
            f"{story.title} has too few words between spaces to ask for",
            "name another --file: prose, in a script that puts spaces between words",
        )
    return story, questions


def _questions(text: str, rounds: int, rng: random.Random) -> list[Question]:
    begins = [found.start() for found in re.finditer(r"\S+", text)]
    askable = {found.start(): found.group() for found in _ASKED.finditer(text)}
    questions: list[Question] = []
    at = 0
    for number in range(rounds):
        wanted = _LEAD + number * _STEP + rng.randint(-_JITTER, _JITTER)
        at = next((i for i in range(max(at + 1, wanted), len(begins)) if begins[i] in askable), -1)
        if at < 0:
            break
        questions.append(Question(text[: begins[at]], askable[begins[at]]))
    return questions


def points(said: str, word: str) -> int:
    """``RIGHT`` for the word itself, ``HALF`` for one with its stem, or that begins as it does
    for three letters and half of the longer one; case does not count."""
    said, word = said.strip().casefold(), word.casefold()
    if said == word:
        return RIGHT
    shared = 0
    while shared < min(len(said), len(word)) and said[shared] == word[shared]:
        shared += 1
    alike = shared >= _ALIKE and 2 * shared >= max(len(said), len(word))
    return HALF if said and (alike or stem(said) == stem(word)) else 0
