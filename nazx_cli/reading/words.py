"""Words of a text or a question: where they end, their stems, which of them say nothing.

A word is a maximal run of letters and digits, except that each character of a script written
without spaces is a word of its own.
"""

from __future__ import annotations

import re
from functools import lru_cache

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # kana and iteration marks
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han
    "\U00020000-\U0003ffff"
)
WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_UNSPACED_CHARACTER = re.compile(rf"[{_UNSPACED}]")

_STOP_WORDS = """
a an the and or but nor so if then than as of at by for from in into on onto to up with
without about over under out off this that these those it its he him his she her hers they
them their theirs we us our ours you your yours i me my mine is am are was were be been being
do does did doing done have has had having can could will would shall should may might must
not no yes s t d ll re ve m don isn wasn weren didn doesn couldn wouldn shouldn hasn haven hadn
there here any some all also just too very
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
_QUESTION_WORDS = """
who whom whose what which when where why how please tell me explain describe say name list
give happen happens happened many much text book story document passage according author
kind type during
"""
QUESTION_WORDS = frozenset(_QUESTION_WORDS.split())
"""Words that shape a question and say little of what it is about."""


def words(text: str) -> list[str]:
    """The words of ``text``, case-folded, in order."""
    return [w.casefold() for w in WORD.findall(text)]


def is_unspaced(character: str) -> bool:
    """True for a character of a script written without spaces between words."""
    return _UNSPACED_CHARACTER.match(character) is not None


def is_word_character(character: str) -> bool:
    """True for a character that can be part of a word."""
    return WORD.match(character) is not None


LONGEST_SUFFIX = 8
"""A word is at most this much longer than its stem ..."""
STEM_CHANGES = 1
"""... and agrees with it in all but at most this many of the stem's last characters."""


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """A light stem of a lower-case word: plural, -ed, -ing and -ly endings go.

    All of the stem but its last character begins the word (see STEM_CHANGES).
    """
    if len(word) <= 3 or not word.isascii():
        return word
    word = _without_plural(word)
    for ending in ("ingly", "edly", "ing", "ed", "ly"):
        if word.endswith(ending):
            base = word[: -len(ending)]
            if len(base) >= 3 and re.search("[aeiouy]", base):
                return _trimmed(base)
            break
    return _trimmed(word)


def _without_plural(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _trimmed(base: str) -> str:
    """One form for stop/stopp(ed), make/mak(ing), cry/cri(ed)."""
    if len(base) > 3 and base[-1] == base[-2] and base[-1] not in "aeiouls":
        base = base[:-1]
    if len(base) > 3 and base.endswith("e"):
        base = base[:-1]
    if len(base) > 2 and base.endswith("i"):
        base = base[:-1] + "y"
    return base
