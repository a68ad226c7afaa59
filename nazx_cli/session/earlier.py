"""The turns before a question.

A question may speak of one: "Why did he do that?", not "Why did the king sell his horse?", whose
pronoun stands for what the question itself names. And those that the prompt left out become
documents of their own, in which recall can find them again.

A pronoun points back where nothing before it in the question can be whom or what it stands for:
nothing with an article or a possessive, no name, no noun behind an auxiliary verb.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.documents.document import Document
from nazx_cli.reading.library import Library
from nazx_cli.reading.recall import occurrences, question_terms
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.reading.words import QUESTION_WORDS, SPACED_WORD, STOP_WORDS
from nazx_cli.session.citation import parse
from nazx_cli.session.state import History, Message, Turn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.tokenizer import Tokenizer

_PRONOUN_LIST = """
he she it they him her his hers its them their theirs this that these those
himself herself itself themselves
"""
_PRONOUNS = frozenset(_PRONOUN_LIST.split())
_BEFORE_NOUNS = """
the a an another each every some any no both all my your our
did does do was were is are will would had has have could can should may might must
"""
_LEADS = frozenset(_BEFORE_NOUNS.split())
_LABELS = frozenset(("question", "answer"))  # words that stand in every turn
_SAY_NOTHING = STOP_WORDS | QUESTION_WORDS


def points_back(question: str) -> bool:
    """Whether ``question`` has a pronoun that stands for something said before it, or names
    nothing at all ("Why?")."""
    before, names = "", False
    found = [match.group() for match in SPACED_WORD.finditer(question)]
    for at, word in enumerate(found):
        low = word.casefold()
        tells = low not in _SAY_NOTHING
        # Behind a verb "that" begins a clause: "knows that", "so rich that".
        begins = low == "that" and before not in _SAY_NOTHING and at + 1 < len(found)
        if low in _PRONOUNS and not begins:
            return True
        is_name = before and word[0].isupper()
        if tells and (is_name or before in _LEADS):
            return False
        names = names or tells
        if low not in ("s", "t"):
            before = low
    return bool(found) and not names


def followed_turn(question: str, history: History) -> Sequence[Message]:
    """The turn that ``question`` speaks of, where a pronoun points back to one: the last that
    itself says of what ("Why?" does not)."""
    if not history.turns or not points_back(question):
        return ()
    turns = reversed(history.turns)
    last = next((turn for turn in turns if _says_of_what(turn.question)), history.turns[-1])
    return (Message("user", last.question), Message("assistant", parse(last.answer).text))


def _says_of_what(question: str) -> bool:
    said = (match.group().casefold() for match in SPACED_WORD.finditer(question))
    return any(word not in _SAY_NOTHING and word not in _PRONOUNS for word in said)


class EarlierTurns:
    """Makes documents of turns, each once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._made: dict[tuple[int, str, str], TokenizedDocument] = {}
        self._library = Library((), tokenizer)

    def library(self, history: History) -> Library | None:
        """The turns that ``history`` leaves out; None where it leaves out none."""
        turns = history.turns[: history.left_out]
        documents = tuple(self._document(number, turn) for number, turn in enumerate(turns, 1))
        if documents != self._library.documents:
            self._library = Library(documents, self._tokenizer)
        return self._library if documents else None

    def _document(self, number: int, turn: Turn) -> TokenizedDocument:
        key = (number, turn.question, turn.answer)
        if key not in self._made:
            text = f"Question: {turn.question}\n\nAnswer: {turn.answer.strip()}"
            document = Document(f"turn {number}", text, "turn")
            self._made[key] = TokenizedDocument.build(document, self._tokenizer)
        return self._made[key]


def named_in(turns: Library, question: str) -> NDArray[np.int32]:
    """Where in ``turns`` the words of content of ``question`` stand: positions, ascending."""
    terms = [t for t in question_terms(question) if t.has_content and t.word not in _LABELS]
    found = [occurrences(turns, term) for term in terms]
    return np.unique(np.concatenate([np.zeros(0, np.int32), *found]))
