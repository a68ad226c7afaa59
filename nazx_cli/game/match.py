"""A game: who plays, what was said in each round, who is ahead, and what context was worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

from nazx_cli.game.words import RIGHT, Question, points

if TYPE_CHECKING:
    from nazx_cli.game.guessing import Guess

_LEAST = 1e-9  # a smaller probability is counted as this one


class Mind(Protocol):
    """What guesses for a player that is no person."""

    def guess(self, question: Question) -> Guess:
        """Its guess, and the probability of the true word."""


@dataclass(frozen=True)
class Turn:
    """What was said in a round (nothing: passed), and its points; of a model also the probability
    that it gave to the true word."""

    said: str
    points: int
    is_right: bool
    chance: float | None = None


@dataclass
class Player:
    """The person, who has no ``mind``, or a model that ``sees`` so many tokens (None: all)."""

    name: str
    mind: Mind | None = None
    model: str = ""
    sees: int | None = None
    turns: list[Turn] = field(default_factory=list)

    @property
    def points(self) -> int:
        """All points so far."""
        return sum(turn.points for turn in self.turns)

    @property
    def right(self) -> int:
        """How many words were right."""
        return sum(turn.is_right for turn in self.turns)

    @property
    def chance(self) -> float | None:
        """The geometric mean of the probabilities of the true words; None for the person."""
        known = [max(t.chance, _LEAST) for t in self.turns if t.chance is not None]
        return math.exp(math.fsum(map(math.log, known)) / len(known)) if known else None


class Match:
    """The person against ``models``, each with its own sight."""

    def __init__(self, models: Sequence[Player]) -> None:
        self.person = Player("you")
        self.players = [self.person, *models]

    @property
    def rounds(self) -> int:
        """Rounds that were played to their end."""
        return len(self.person.turns)

    def play(
        self,
        question: Question,
        said: str,
        *,
        hinted: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[tuple[Player, Turn]]:
        """A round: the person said ``said``, for half of the points where ``hinted``. Everybody's
        turn, in the order of the players; where it is cut short nobody's counts."""
        own = points(said, question.word)
        turns = [Turn(said, own // 2 if hinted else own, own == RIGHT)]
        for done, player in enumerate(self.players[1:]):
            if on_progress:
                on_progress(done, len(self.players) - 1)
            assert player.mind is not None, "a model has a mind"
            turns.append(_judged(player.mind.guess(question), question.word))
        for player, turn in zip(self.players, turns, strict=True):
            player.turns.append(turn)
        return list(zip(self.players, turns, strict=True))

    def ranking(self) -> list[Player]:
        """The players by their points, the first ahead; the person before models with as many."""
        return sorted(self.players, key=lambda player: -player.points)

    def worth(self) -> Iterator[str]:
        """A line for each model that played with more than one sight: what the longest gave it
        over the shortest."""
        for model, group in groupby(self.players[1:], key=lambda player: player.model):
            by_sight = sorted(group, key=lambda p: math.inf if p.sees is None else p.sees)
            short, long = by_sight[0], by_sight[-1]
            if short is long or short.chance is None or long.chance is None:
                continue
            bits = math.log2(long.chance / short.chance)
            yield (
                f"what context was worth to {model}: with {sight(long.sees)} {long.right} of "
                f"{self.rounds} right and {long.chance:.1%} for the true word, with "
                f"{sight(short.sees)} {short.right} and {short.chance:.1%}: {bits:+.1f} bits a word"
            )


def sight(sees: int | None) -> str:
    """How much of the text somebody sees, in words."""
    return "all of the text" if sees is None else f"{sees:,} tokens"


def _judged(guess: Guess, word: str) -> Turn:
    """A model gets a share of the points for what it thought of the true word, where that is more
    than what it said is worth."""
    own = points(guess.word, word)
    return Turn(guess.word, max(own, round(RIGHT * guess.chance)), own == RIGHT, guess.chance)
