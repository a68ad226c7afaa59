"""Slips of the pen in a question: "Lawerence" for a Lawrence of the documents.

A word that the documents have no form of is looked for once more, with a letter left out, put in
or changed, or two letters beside each other that change places: by their posting lists, so in
documents of any size. Common words are left as they are, for their writer knew them, and so is
what stands in quotation marks. Common words are known in English alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from string import ascii_lowercase
from typing import TYPE_CHECKING

from nazx_cli.reading.words import WORD, stem

if TYPE_CHECKING:
    from nazx_cli.reading.grounding import Ordinary
    from nazx_cli.reading.library import Library

_QUOTED = re.compile(r'"[^"]*"|“[^”]*”')  # meant as it is typed
_SHORTEST = 5  # letters: shorter words are a letter from too many others
_LONGEST = 32  # letters: longer ones are no words, and have very many neighbours
_ARTICLES = 0.005  # of the tokens of a text, at least: English prose has 0.04
_LOOKED_AT = 64  # places where a stem stands, for how the word is written there
_TOKENS = 16  # that a word takes, at most


def slips(library: Library, ordinary: Ordinary, question: str) -> dict[str, str]:
    """The words of ``question`` that are one slip from a word of the documents, as they are typed,
    each with that word, the commonest where there are several; the first letter is taken to be
    right.

    Of FairytaleQA's 8,548 training questions 89 have such words, 87 of them rightly so.
    """
    if not ordinary:  # it cannot tell which words are common
        return {}
    asked = dict.fromkeys(WORD.findall(_QUOTED.sub(" ", question)))
    unknown = [typed for typed in asked if _is_unknown(library, ordinary, typed)]
    if not unknown or not _is_english(library):
        return {}
    found: dict[str, str] = {}
    for typed in unknown:
        if meant := _nearest(library, typed.casefold()):
            plain = meant.islower() or meant.isupper()
            found[typed] = meant.capitalize() if typed[0].isupper() and plain else meant
    return found


def _is_unknown(library: Library, ordinary: Ordinary, typed: str) -> bool:
    """Whether ``typed`` is as long as a word with a slip, and neither the documents' nor a common
    word."""
    word = typed.casefold()
    if not _SHORTEST <= len(word) <= _LONGEST or not (word.isascii() and word.isalpha()):
        return False
    common = ordinary.has(word, whole=True) or ordinary.is_name(typed)
    return not common and not library.has_form(word)


def mended(question: str, found: Mapping[str, str]) -> str:
    """``question`` with the words that ``slips`` found in place of those that were typed."""
    return WORD.sub(lambda match: found.get(match.group(), match.group()), question)


def _is_english(library: Library) -> bool:
    """Whether the documents are in the language whose common words are known: where they are not,
    a word that they lack may well be another form of one that they have."""
    return library.matcher.tally("the").total >= _ARTICLES * library.num_tokens


def _nearest(library: Library, word: str) -> str:
    """The commonest word of the documents that is one slip from ``word``; "" if there is none."""
    near = _one_slip_from(word)
    places = ((each, library.matcher.find(each)) for each in sorted({stem(each) for each in near}))
    held = sorted(((each, at) for each, at in places if len(at)), key=lambda pair: -len(pair[1]))
    for root, at in held:
        for begin in at[:_LOOKED_AT].tolist():
            end = int(library.bounds[library.document_of(begin) + 1])
            written: list[str] = WORD.findall(library.span(begin, min(begin + _TOKENS, end)).text)
            for each in written:
                if each.casefold() in near and stem(each.casefold()) == root:
                    return each
    return ""


def _one_slip_from(word: str) -> frozenset[str]:
    """Words that ``word`` may stand for, with the same first letter."""
    parts = [(word[:at], word[at:]) for at in range(1, len(word) + 1)]
    left_in = (a + b[1:] for a, b in parts if b)
    swapped = (a + b[1] + b[0] + b[2:] for a, b in parts if len(b) > 1)
    changed = (a + letter + b[1:] for a, b in parts if b for letter in ascii_lowercase)
    left_out = (a + letter + b for a, b in parts for letter in ascii_lowercase)
    return frozenset(chain(left_in, swapped, changed, left_out)) - {word}
