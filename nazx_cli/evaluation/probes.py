"""Probes of long contexts: something put at a known depth of a text of known length, and asked for
at its end. What they need of a model is that it attends that far and can use what it finds there.

associative   two words next to each other that have nothing to do with each other; at the end
              stands the first: is the second, of sixteen that are as likely, foretold best?
passkey       a number that is said twice; at the end it is asked for
lines         a line "LINE word: number" among as many others as fit; at the end one is asked for
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nazx_cli.errors import DocumentError
from nazx_cli.evaluation.data.stories import digest
from nazx_cli.evaluation.records import AnswerFile

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.evaluation.approximations.base import Approximation
    from nazx_cli.tokenizer import Tokenizer

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHORTEST = 128
_OPTIONS = 16
_SAYS = "\nThe pass key is {0}. Remember it: {0}.\n"
_ASKS = "\nWhat is the pass key? The pass key is"


@dataclass(frozen=True)
class Trial:
    """A prompt of token ids, the last ``asked`` of which ask, and what should follow; where
    ``options`` are given, single tokens of which the right one should be the likeliest, else
    ``answer`` should be generated."""

    prompt: tuple[int, ...]
    asked: int
    answer: tuple[int, ...]
    options: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """Whether one trial came out right, where it stands in the map, and how long it took."""

    run: str
    item: str
    model: str
    probe: str
    length: int
    depth: float
    right: bool
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def plain_words(tokenizer: Tokenizer) -> list[int]:
    """Ids of words of middle length that are one token with the space before them."""
    words = tokenizer.whole_words
    return sorted(i for word, i in words.items() if 4 <= len(word) <= 8 and word.islower())


class Prober:
    """Makes the trials of one tokenizer, with ``text`` as what stands around them.

    ``DocumentError`` where there is too little of it.
    """

    def __init__(self, tokenizer: Tokenizer, text: str) -> None:
        self._tokenizer = tokenizer
        self._filler: list[int] = tokenizer.encode_document(text).ids.tolist()
        if len(self._filler) < 2 * SHORTEST:
            raise DocumentError("the text is too short to hide anything in", "name a longer one")
        self._words = plain_words(tokenizer) or sorted(set(self._filler))

    def trial(self, probe: str, length: int, depth: float, rng: random.Random) -> Trial:
        """A prompt of ``length`` tokens with what is sought at ``depth``, 0 its start and 1 its
        end."""
        return _PROBES[probe](self, length, depth, rng)

    def associative(self, length: int, depth: float, rng: random.Random) -> Trial:
        """See above; neither word stands anywhere else in the prompt."""
        around = self._around(length - 3, rng)
        there = set(around)
        free = [word for word in self._words if word not in there] or self._words
        key, *options = rng.sample(free, min(len(free), 1 + _OPTIONS))
        at = round(depth * len(around))
        prompt = (*around[:at], key, options[0], *around[at:], key)
        return Trial(prompt, 1, (options[0],), tuple(sorted(options)))

    def passkey(self, length: int, depth: float, rng: random.Random) -> Trial:
        """See above; the number has five digits."""
        number = str(rng.randrange(10_000, 100_000))
        said = self._tokenizer.encode(_SAYS.format(number))
        asked = self._tokenizer.encode(_ASKS)
        around = self._around(length - len(said) - len(asked), rng)
        at = round(depth * len(around))
        return self._asked([*around[:at], *said, *around[at:]], asked, f" {number}")

    def lines(self, length: int, depth: float, rng: random.Random) -> Trial:
        """See above; each line has a word of its own and a number of three digits."""
        known = sorted(self._tokenizer.whole_words) or [str(n) for n in range(1000)]
        names = rng.sample(known, len(known))
        made: list[tuple[str, str, list[int]]] = []
        size = 0
        for name in names:
            number = str(rng.randrange(100, 1000))
            ids = self._tokenizer.encode(f"LINE {name}: {number}\n")
            if made and size + len(ids) > length - 8:
                break
            made.append((name, number, ids))
            size += len(ids)
        name, number, _ = made[round(depth * (len(made) - 1))]
        said = [i for *_, ids in made for i in ids]
        return self._asked(said, self._tokenizer.encode(f"LINE {name}:"), f" {number}")

    def _asked(self, said: Sequence[int], asked: Sequence[int], answer: str) -> Trial:
        return Trial((*said, *asked), len(asked), tuple(self._tokenizer.encode(answer)))

    def _around(self, count: int, rng: random.Random) -> list[int]:
        """``count`` tokens of the text from a place of chance, over and over where it is short."""
        count, start = max(0, count), rng.randrange(len(self._filler))
        turned = self._filler[start:] + self._filler[:start]
        return (turned * (count // len(turned) + 1))[:count]


_PROBES: dict[str, Callable[[Prober, int, float, random.Random], Trial]] = {
    "associative": Prober.associative,
    "passkey": Prober.passkey,
    "lines": Prober.lines,
}


def comes_out_right(lm: LanguageModel, trial: Trial, resident: bool = False) -> bool:
    """Run one trial, all of its prompt as live tokens, or what asks alone and the rest
    ``resident``."""
    context, first = lm.new_context(), len(trial.prompt) - trial.asked
    context.append(trial.prompt[:first], resident=resident)
    context.append(trial.prompt[first:])
    if trial.options:
        logits = lm.next_logits(context)
        return trial.options[int(logits[list(trial.options)].argmax())] == trial.answer[0]
    for token in trial.answer:
        if int(lm.next_logits(context).argmax()) != token:
            return False
        context.append([token])
    return True


def comes_out_right_by(approximation: Approximation, lm: LanguageModel, trial: Trial) -> bool:
    """The same by an approximation, in one pass: the answer is generated where each of its tokens
    is the likeliest after the right ones."""
    import torch

    ids = torch.tensor((*trial.prompt, *trial.answer[:-1]))
    states = approximation.states(lm.decoder, ids)[len(trial.prompt) - 1 :]
    logits = lm.decoder.logits(states)
    if trial.options:
        return trial.options[int(logits[0, list(trial.options)].argmax())] == trial.answer[0]
    return tuple(logits.argmax(-1).tolist()) == trial.answer


def lengths_up_to(most: int) -> list[int]:
    """Powers of two from ``SHORTEST`` on, and ``most`` itself."""
    found = []
    length = SHORTEST
    while length < most:
        found.append(length)
        length *= 2
    return [*found, most]


def probe(
    name: str,
    run: str,
    lm: LanguageModel,
    probes: Sequence[str],
    text: str,
    answers: AnswerFile,
    *,
    longest: int,
    trials: int,
    seed: int = 0,
    resident: bool = False,
    approximation: Approximation | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Outcome]:
    """Outcomes of ``trials`` at each length up to ``longest`` and each depth, the same for every
    model with this tokenizer; ``resident`` as in ``comes_out_right``. What ``answers`` holds of
    ``run`` is taken from there."""
    prober = Prober(lm.tokenizer, text)
    cells = [(p, n, d) for p in probes for n in lengths_up_to(longest) for d in DEPTHS]
    for done, (which, length, depth) in enumerate(cells):
        on_progress(done, len(cells))
        for number in range(trials):
            item = digest(which, str(length), str(depth), str(number), str(seed), text)[:16]
            line = answers.get(run, item)
            if line is None:
                rng = random.Random(f"{seed} {which} {length} {depth} {number}")
                trial, began = prober.trial(which, length, depth, rng), time.monotonic()
                if approximation is None:
                    right = comes_out_right(lm, trial, resident)
                else:
                    right = comes_out_right_by(approximation, lm, trial)
                took = time.monotonic() - began
                line = Outcome(run, item, name, which, length, depth, right, took).to_dict()
                answers.add([line])
            yield Outcome(**line)
    on_progress(len(cells), len(cells))


def heat_map(outcomes: Sequence[Outcome]) -> dict[tuple[int, float], float]:
    """The share that came out right, by length and depth."""
    found: dict[tuple[int, float], list[bool]] = {}
    for each in outcomes:
        found.setdefault((each.length, each.depth), []).append(each.right)
    return {place: sum(rights) / len(rights) for place, rights in sorted(found.items())}
