"""Which questions speak of the turn before: "Why did he do that?", not "Why did the king sell his
horse?", whose pronoun stands for what the question itself names.

A pronoun points back where nothing before it in the question can be whom or what it stands for:
nothing with an article or a possessive, no name, no noun behind an auxiliary verb.
"""

from __future__ import annotations

from collections.abc import Sequence

from nazx_cli.reading.words import QUESTION_WORDS, SPACED_WORD, STOP_WORDS
from nazx_cli.session.citation import parse
from nazx_cli.session.state import History, Message

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
