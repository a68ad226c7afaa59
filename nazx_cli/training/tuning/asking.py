"""Packs of questions about passages, as the session asks them.

The mix is that of use: passages of the right section, alone or among others; groups of passages
by rank, as the parts of a question are, or for a model that is asked once the best ones together;
questions that the passages shown do not answer; questions about a whole text; second questions that
say "she" for the princess.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nazx_cli.evaluation.data.stories import SUMMARY, Question, Story
from nazx_cli.reading.plan import typical_passages
from nazx_cli.session.citation import NOT_SAID, write
from nazx_cli.session.parts import PASSAGE_ROOM, Asking
from nazx_cli.session.prompt import form_of, user_message
from nazx_cli.session.state import Message
from nazx_cli.session.templating.templates import render, stop_ids
from nazx_cli.training.packing import Pack, pack
from nazx_cli.training.tuning.books import Asked, Book, books, found

if TYPE_CHECKING:
    from nazx_cli.reading.passages import Passage
    from nazx_cli.tokenizer import Tokenizer

LONGEST_ANSWER = 220  # characters
LONGEST_SUMMARY = 420
_PREFIX = 1100  # tokens before the first question of a pack
_ASKED_OF = 12  # passages of a ranking that a question is put to in use
_MOST = 9  # questions of a pack that are answered
_EMPTY = 0.15  # share of parts that are taken although they do not hold the answer
_HARD = 8  # questions of a pack that recall would put to its passages, which do not answer them
_REFUSED = 0.25  # questions that are not answered, for each that is (0.8 made answers worse),
_ALONE = 2  # and so many of them where none is
_FEW = 2.5  # questions of a stretch: with fewer, stretches are asked about together
_LONG_SECTION = 2400  # characters: of a longer one, recall has to find the place

Rows = list[tuple[list[int], list[int]]]


@dataclass(frozen=True)
class _Mix:
    """What passages are shown.

    given     share of packs whose passages are those of a section, not those of recall
    merged    share of packs in which passages that follow on each other are one
    ranked    passages of a ranking that are divided into parts
    sizes     passages of a part
    anchors   stretches that are asked about together, where they have few questions
    """

    given: float
    merged: float
    ranked: int
    sizes: tuple[int, ...]
    anchors: tuple[int, ...]

    @classmethod
    def of(cls, asking: Asking) -> _Mix:
        """A model that is asked once is shown the best passages, as they will be: one part."""
        if asking.apart == 0:
            best = asking.together
            return cls(given=0.15, merged=1.0, ranked=best, sizes=(best,), anchors=(1,))
        sizes, anchors = (2, 3, 3, 3, 4, 4, 6), (1, 2, 3, 3)
        return cls(given=0.38, merged=0.6, ranked=16, sizes=sizes, anchors=anchors)


class Asker:
    """Makes packs of stories, for a model that is asked as ``asking`` has it."""

    def __init__(
        self, tokenizer: Tokenizer, longest: int, rng: random.Random, asking: Asking
    ) -> None:
        self._tokenizer = tokenizer
        self._longest = longest
        self._rng = rng
        self._end = end_of_answer(tokenizer)
        self._mix = _Mix.of(asking)
        self._prefix = max(_PREFIX, PASSAGE_ROOM * asking.together)

    def packs(self, stories: Sequence[Story], kind: str) -> Iterator[Pack]:
        """Packs of all stories, each asked about once, in books of a few sizes."""
        for book in books(stories, self._tokenizer, self._rng):
            for anchors in self._anchors(book):
                yield from self._fitting(self._about(book, anchors), kind)
            for number in range(len(book.stories)):
                rows = self._follow_up(book, number)
                yield from self._fitting(rows, f"{kind} follow-up")
        for story in stories:
            yield from self._fitting(self._overview(story), f"{kind} overview")

    def _fitting(self, rows: Rows, kind: str) -> Iterator[Pack]:
        if rows:
            made = pack(rows, kind)
            if made.longest <= self._longest and len(made.prefix) <= self._prefix:
                yield made

    def _anchors(self, book: Book) -> Iterator[list[Asked]]:
        """One question for each stretch of evidence, several of them together where stretches
        have but one or two questions of their own and passages need not be those by rank."""
        by_place: dict[object, list[Asked]] = {}
        for asked in book.asked:
            if asked.question.kind != SUMMARY:
                place = asked.question.sections if asked.evidence else ("", id(asked))
                by_place.setdefault((asked.story, place), []).append(asked)
        groups = list(by_place.values())
        few = sum(map(len, groups)) < _FEW * len(groups)
        self._rng.shuffle(groups)
        at = 0
        while at < len(groups):
            count = self._rng.choice(self._mix.anchors) if few else 1
            yield [self._rng.choice(group) for group in groups[at : at + count]]
            at += count

    def _about(self, book: Book, anchors: list[Asked]) -> Rows:
        """Rows on passages for ``anchors``: these and the other questions that they bear on."""
        numbers = self._choose(book, anchors)
        passages = self._passages(book, numbers)
        yes: list[tuple[str, str]] = []
        no: list[tuple[str, str]] = []
        for asked in self._pool(book, anchors, numbers):
            answer = self._answer(asked.question)
            if answer is None:
                continue
            question = asked.question.text
            judged = found(book, asked, answer, passages)
            if not asked.question.answers:
                if judged.held:
                    no.append((question, NOT_SAID))
            elif judged.held:
                yes.append((question, write(answer, judged.number)))
            elif judged.absent and answer not in ("Yes.", "No."):
                no.append((question, NOT_SAID))
        self._rng.shuffle(yes)
        answered = yes[:_MOST]
        kept = int(len(answered) * _REFUSED + self._rng.random()) if answered else _ALONE
        chosen = answered + no[:kept]
        self._rng.shuffle(chosen)
        return [self._row(question, passages, answer) for question, answer in chosen]

    def _passages(self, book: Book, numbers: Sequence[int]) -> tuple[Passage, ...]:
        return book.passages(numbers, self._rng.random() < self._mix.merged)

    def _choose(self, book: Book, anchors: Sequence[Asked]) -> list[int]:
        rng, anchor = self._rng, anchors[0]
        evidence = [span for asked in anchors for span in asked.evidence]
        gold = set(book.holding(evidence))
        size = sum(b - a for a, b in evidence)
        given = self._mix.given if len(anchors) == 1 else 1.0
        if gold and rng.random() < given and size < _LONG_SECTION:
            numbers = sorted(gold)
            if rng.random() < 0.4:
                order = [i for i in book.ranked(anchor.question.text, 12) if i not in gold]
                numbers += order[: rng.randint(1, 2)]
            return numbers
        order = book.ranked(anchor.question.text, self._mix.ranked)
        each = rng.choice(self._mix.sizes)
        parts = [order[at : at + each] for at in range(0, len(order), each)]
        good = [part for part in parts if gold.intersection(part)]
        if good and rng.random() > _EMPTY:
            return rng.choice(good)
        if not good and gold and rng.random() < 0.5:
            return parts[0][: max(1, each - 2)] + rng.sample(sorted(gold), min(2, len(gold)))
        return rng.choice(parts) if parts else sorted(gold)

    def _pool(self, book: Book, anchors: Sequence[Asked], numbers: Sequence[int]) -> list[Asked]:
        """The anchors, questions that recall would put to the same passages, the other questions
        of the story that may be answered beside them, and one of another story."""
        story, places = anchors[0].story, {asked.evidence for asked in anchors}
        known = [a for a in book.asked if a.question.kind != SUMMARY and a not in anchors]
        near = [a for a in known if a.evidence in places]
        rest = [a for a in known if a.story == story and a.evidence not in places]
        others = [a for a in known if a.story != story and a.question.answers and a not in near]
        picked = self._rng.sample(rest, min(len(rest), 14))
        strange = self._rng.sample(others, min(len(others), 1))
        shown = set(numbers)
        alike = [
            a
            for a in (*picked, *self._rng.sample(others, min(len(others), 40)))
            if len(shown.intersection(book.ranked(a.question.text, _ASKED_OF)))
            >= min(2, len(shown))
        ]
        hard = self._rng.sample(alike, min(len(alike), _HARD))
        rest = [a for a in (*picked, *strange) if a not in hard]
        return [*anchors, *near, *hard, *rest]

    def _overview(self, story: Story) -> Rows:
        """A question about the whole of a story, which is a book by itself."""
        asked = [question for question in story.questions if question.kind == SUMMARY]
        if not asked:
            return []
        question = self._rng.choice(asked)
        book = Book([story], self._tokenizer, self._rng)
        count = min(self._rng.randint(4, 8), len(book.library.passages))
        chosen = typical_passages(book.library, count)
        passages = tuple(book.library.passages[i] for i in chosen)
        text = first_sentences(self._rng.choice(question.answers), LONGEST_SUMMARY)
        return [self._row(question.text, passages, text, overview=True)] if text else []

    def _follow_up(self, book: Book, story: int) -> Rows:
        """A second question that says "he" for whom the first one named."""
        asked = [a for a in book.asked if a.story == story and a.question.answers]
        self._rng.shuffle(asked)
        for second in asked[:12]:
            said = with_pronoun(second.question.text)
            if said is None:
                continue
            name, text = said
            firsts = [a for a in asked if a is not second and name in a.question.text]
            answer = self._answer(second.question)
            passages = self._passages(book, self._choose(book, [second]))
            if not firsts or answer is None or not passages:
                continue
            judged = found(book, second, answer, passages)
            before = self._answer(firsts[0].question)
            if not judged.held or before is None:
                continue
            history = [Message("user", firsts[0].question.text), Message("assistant", before)]
            return [self._row(text, passages, write(answer, judged.number), history)]
        return []

    def _row(
        self,
        question: str,
        passages: Sequence[Passage],
        answer: str,
        history: Sequence[Message] = (),
        *,
        overview: bool = False,
    ) -> tuple[list[int], list[int]]:
        form = form_of(self._tokenizer)
        message = user_message(self._asked(question), passages, overview=overview, form=form)
        text = f" {answer}" if form == "plain" else answer
        prompt = render(self._tokenizer, [*history, message])
        return prompt, [*self._tokenizer.encode(text), *self._end]

    def _asked(self, question: str) -> str:
        """The question on one line; half of those written without care, with care."""
        text = " ".join(question.split())
        if text[:1].islower() and text[-1:].isalnum() and self._rng.random() < 0.5:
            text = f"{text[0].upper()}{text[1:]}?"
        return text

    def _answer(self, question: Question) -> str | None:
        """One of the answers as a sentence; "" for an unanswerable question, None for one that
        is too long to learn."""
        if not question.answers:
            return ""
        text = sentence(self._rng.choice(question.answers))
        return text if text and len(text) <= LONGEST_ANSWER else None


def end_of_answer(tokenizer: Tokenizer) -> list[int]:
    """The token that ends an answer: what the chat template puts behind one, or the end of
    text."""
    stops = stop_ids(tokenizer)
    if tokenizer.chat_template is not None:
        turns = [Message("user", "a"), Message("assistant", "b")]
        ids = render(tokenizer, turns, add_generation_prompt=False)
        for token in reversed(ids):
            if token in stops:
                return [token]
    return [min(stops)] if stops else []


def sentence(answer: str) -> str:
    """``answer`` with a capital and a full stop."""
    text = " ".join(answer.split()).rstrip(" .,;")
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in "!?" else ".")


def first_sentences(text: str, most: int) -> str:
    """As many of the first sentences as have at most ``most`` characters together."""
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    ends = [m.end() for m in re.finditer(r"[.!?][\"'”’)]*(?=\s)", text[: most + 1])]
    return text[: ends[-1]] if ends else ""


_PEOPLE = {
    "he": "king prince man boy father son brother husband giant wizard fisherman soldier tailor "
    "merchant farmer shepherd hunter uncle grandfather knight lord master emperor monk",
    "she": "queen princess woman girl mother daughter sister wife witch maiden lady aunt "
    "grandmother fairy maid empress bride nurse stepmother",
    "they": "brothers sisters children people men women princes princesses robbers sons daughters "
    "soldiers fairies boys girls parents dwarfs",
}
_PRONOUN = {noun: pronoun for pronoun, nouns in _PEOPLE.items() for noun in nouns.split()}
_BEFORE = r"(?:did|does|do|was|is|were|are|will|would|had|has|could|can|should|when|after|before)"
_PERSON = re.compile(
    rf"\b({_BEFORE}) (the (?:\w+ ){{0,2}}?({'|'.join(_PRONOUN)}))(?=[ ?,])", re.IGNORECASE
)


def with_pronoun(question: str) -> tuple[str, str] | None:
    """Whom a question names as its subject, and the question with a pronoun for them; None
    where it names nobody so, or would name nobody else beside."""
    match = _PERSON.search(question)
    if match is None:
        return None
    name, pronoun = match.group(2), _PRONOUN[match.group(3).lower()]
    return name, question[: match.start(2)] + pronoun + question[match.end(2) :]
