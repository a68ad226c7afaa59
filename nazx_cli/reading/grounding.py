"""Holding an answer's names and numbers to what it is asked about.

A word of the answer is looked up while it is spelled out, token by token: its beginning must be
that of a word, its end must make it one, of the documents (on the posting lists of their tokens)
or of what was said.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from nazx_cli.reading.words import (
    QUESTION_WORDS,
    STOP_WORDS,
    WORD,
    begins_sentence,
    is_unspaced,
    script,
    stem,
    words,
)

if TYPE_CHECKING:
    from nazx_cli.reading.library import Library
    from nazx_cli.tokenizer import Tokenizer

_CAPITALS = 0.25  # where this share of words has a capital, one tells no name: German, tables
_NATIVE = 3  # words, at least, by which an answer is in the documents' language
_FOREIGN = 5  # and by which it is not: short documents lack many common words
_PART = 3  # letters, at least, of a part of a word that is written as one
_NAMES_RATHER = 4.0  # a word this many times as common with a capital is a name: John, India
_COMMON_WORDS = 1000  # a vocabulary with fewer whole words tells nothing of what is ordinary

_RECKONS = re.compile(
    r"\b(sum|total|add|subtract|multiply|divide|difference|average|mean|median|percent\w*|share"
    r"|calculate|compute|convert|estimate|count)\b|[+*/=%]",
    re.IGNORECASE,
)
_WRITTEN = """
ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty
fifty sixty seventy eighty ninety hundred thousand
"""
_NUMBERS = (*range(10, 20), *range(20, 100, 10), 100, 1000)
_NUMERALS = dict(zip(map(str, _NUMBERS), _WRITTEN.split(), strict=True))
_SHORTENED = re.compile(r"\b(Mr|Mrs|Ms|Dr|St|Prof|Capt|Col|Gen|Lt|Sgt)\.")
_TITLE_WORDS = """
mr mrs ms miss dr st prof capt col gen lt sgt sir madam lord lady king queen prince princess duke
duchess count emperor president minister captain colonel major general doctor professor saint
father mother brother sister uncle aunt old young little
"""
_TITLES = frozenset(_TITLE_WORDS.split())  # before a name: others have them too
_ITEM = re.compile(r"(?:^|\n)[ \t]*(\d{1,3})[.)]")  # the number of an entry of a list


def strange_names(library: Library, question: str) -> tuple[str, ...]:
    """The names in ``question`` where the documents have none of them: of whom they do not speak
    they say nothing. () where it names nobody, or where a capital tells no name.

    Of FairytaleQA's 9,573 questions, which all have answers, 30 have such names, misspelt ones
    (most of them ``reading.spelling`` puts right before); of SQuAD 2.0's (half of its dev split, a
    paragraph each) 1.5 % of those that have one and 3.7 % of those that have none.
    """
    question = _SHORTENED.sub(r"\1 ", question)  # no end of a sentence
    none = (STOP_WORDS, QUESTION_WORDS, _TITLES, library.title_words)
    names = [
        match.group()
        for match in WORD.finditer(question)
        if match.group()[0].isupper()
        and not any(match.group().casefold() in each for each in none)
        and not begins_sentence(question, match.start())
    ]
    if not tells_names(library) or any(library.has_form(name.casefold()) for name in names):
        return ()
    return tuple(dict.fromkeys(names))


def tells_names(library: Library) -> bool:
    """Whether a capital says anything in these documents."""
    capitals, letters = library.matcher.initials
    return capitals < _CAPITALS * max(1, letters)


class Ordinary:
    """The words that a tokenizer has as tokens of their own: common ones, its ids told in the
    order of how common they are. True where it has enough of them to tell."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __bool__(self) -> bool:
        return bool(self._ids)

    @cached_property
    def _ids(self) -> dict[str, int]:
        whole = self._tokenizer.whole_words
        return whole if len(whole) >= _COMMON_WORDS else {}

    @cached_property
    def _lower(self) -> list[str]:
        return sorted(word for word in self._ids if word.islower())

    @cached_property
    def _stems(self) -> frozenset[str]:
        return frozenset(map(stem, self._lower))

    def has(self, word: str, *, whole: bool) -> bool:
        """Whether ``word`` is a form of a common word; unless it is ``whole``, whether it is the
        beginning of one."""
        folded = word.casefold()
        return self._is_common(folded) or (not whole and _begins(self._lower, folded))

    def has_parts(self, word: str) -> bool:
        """Whether ``word`` is two common words written as one."""
        folded = word.casefold()
        return any(
            folded[:at] in self._ids and self._is_common(folded[at:])
            for at in range(_PART, len(folded) - _PART + 1)
        )

    def _is_common(self, folded: str) -> bool:
        return folded in self._ids or stem(folded) in self._stems

    def is_name(self, word: str) -> bool:
        """Whether the capitalised ``word`` is common as a name alone."""
        lower = self._ids.get(word.casefold())
        capital = self._ids.get(word)
        if capital is None or word.endswith("ly"):  # Luckily, a sentence's first word
            return False
        return lower is None or lower > _NAMES_RATHER * capital


class DocumentGrounding:
    """See ``engine.grounding.Grounding``: names and numbers are those of ``library`` or of the
    texts ``said``: the question first, and what else the model is told."""

    def __init__(self, library: Library, ordinary: Ordinary, said: Sequence[str]) -> None:
        self.tokenizer = library.tokenizer
        # A special token writes nothing: the word before it is whole.
        self.ends = self.tokenizer.stop_ids | frozenset(self.tokenizer.special_ids.values())
        self._matcher = library.matcher
        self.library = library
        self.ordinary = ordinary
        self.reckons = bool(_RECKONS.search(said[0]))
        self._question = said[0]
        self._said = sorted({word for text in said for word in words(text)})
        self._said_stems = frozenset(map(stem, self._said))

    def begin(self) -> _Answer:
        """See ``engine.grounding.Grounding``."""
        return _Answer(self)

    def has(self, word: str) -> bool:
        """Whether documents or what was said have a form of ``word``."""
        root = stem(word.casefold())
        return root in self._said_stems or self._matcher.has(root)

    def begins(self, start: str, *, spelled: bool = False) -> bool:
        """Whether a word of theirs begins with ``start``; ``spelled``: with these capitals."""
        return _begins(self._said, start.casefold()) or self._matcher.begins(start, spelled=spelled)

    def tells(self, word: str) -> bool:
        """Whether the documents can be asked for ``word``, and have its alphabet."""
        return self._matcher.can_tell(word) and script(word[0]) in self._matcher.scripts

    def is_foreign(self, text: str) -> bool:
        """Whether the documents lack most words of question and ``text``, names left out."""
        known, unknown = self._shared(f"{self._question} {text}")
        return unknown >= max(_FOREIGN, 2 * known)

    def is_native(self, text: str) -> bool:
        """Whether the documents have most words of ``text``."""
        known, unknown = self._shared(text)
        return known >= max(_NATIVE, 2 * unknown)

    def _shared(self, text: str) -> tuple[int, int]:
        """How many lower-case words of ``text`` the documents have, and lack."""
        lower = {word for word in WORD.findall(text) if word.islower()}
        known = sum(self._matcher.has(stem(word)) for word in lower)
        return known, len(lower) - known


class _Answer:
    """See ``engine.grounding.Grounded``.

    ``_open`` is where in the answer's text the word begins that its end may carry on, ``_pieces``
    how many tokens that word has. A word that was let through goes free from then on.
    """

    def __init__(self, grounding: DocumentGrounding) -> None:
        self._of = grounding
        self._stream = grounding.tokenizer.stream()
        self._text = ""
        self._open = 0
        self._pieces = 0
        self._is_free = False
        self._let_through: set[str] = set()
        self._verdicts: dict[int, bool] = {}

    def fits(self, token: int) -> bool:
        """See ``engine.grounding.Grounded``."""
        if token not in self._verdicts:
            text = self._with(token)
            self._verdicts[token] = all(self._is_grounded(m, text) for m in self._words(text))
        return self._verdicts[token]

    def take(self, token: int) -> None:
        """See ``engine.grounding.Grounded``."""
        text, begins, is_free = self._with(token), None, False
        for match in self._words(text):
            carried_on = self._is_free and match.start() == self._open
            is_free = carried_on or not self._is_grounded(match, text)
            if match.end() == len(text):
                begins = match.start()
            elif is_free:
                self._let_through.add(match.group().casefold())
        if begins is None:
            self._open, self._pieces, self._is_free = len(text), 0, False
        else:
            self._pieces = self._pieces + 1 if begins == self._open else 1
            self._open, self._is_free = begins, is_free
        self._text = text
        self._stream.push(token)
        self._verdicts = {}

    def _with(self, token: int) -> str:
        """The answer with ``token``; one that ends it ends its last word too."""
        return self._text + ("\n" if token in self._of.ends else self._stream.peek(token))

    def _words(self, text: str) -> Iterator[re.Match[str]]:
        """The words of ``text`` that are new, or carried on from where the answer ends."""
        return WORD.finditer(text, self._open)

    def _is_grounded(self, match: re.Match[str], text: str) -> bool:
        """What is no name and no number goes free as a rule, and so does all of which it cannot
        be told: code, parts of names of files, scripts without spaces."""
        word, at, whole = match.group(), match.start(), match.end() < len(text)
        carries_on = at == self._open and self._pieces > 0
        if carries_on and self._is_free:
            return True
        if is_unspaced(word[0]) or text[at - 1 : at] in tuple("_.'’@/\\"):
            return True
        if text.count("`", 0, at) % 2 or word.casefold() in self._let_through:
            return True
        if word.isdecimal():
            return self._is_number(word, at, whole, text)
        if word[0].isupper():
            return self._is_name(word, whole, first=begins_sentence(text, at))
        return not carries_on or self._is_word(word, whole)

    def _is_number(self, word: str, at: int, whole: bool, text: str) -> bool:
        """Counting goes free: one digit, the next entry of a list, a passage's number."""
        of, before = self._of, text[at - 1 : at]
        if len(word) == 1 or before == "[" or word == "000" or of.reckons:
            return True
        entries = _ITEM.findall(text, 0, at)
        if entries and str(int(entries[-1]) + 1).startswith(word) and before in ("", "\n"):
            return True
        if word in _NUMERALS and (not whole or of.has(_NUMERALS[word])):
            return True
        return of.has(word) or (not whole and of.begins(word))

    def _is_name(self, word: str, whole: bool, *, first: bool) -> bool:
        """A capitalised word that is no name goes free."""
        of, inner = self._of, word[1:]
        if len(word) < 2 or (inner != inner.lower() and not word.isupper()):
            return True  # I, McDonald, KeyError
        if not tells_names(of.library) or of.has(word):
            return True
        is_name = of.ordinary.is_name(word)
        if not whole and of.begins(word, spelled=is_name and not word.isupper()):
            return True
        if first and (not of.ordinary or of.ordinary.has_parts(word)):
            return True
        if of.ordinary.has(word, whole=whole) and (first or not is_name):
            return True
        return not of.tells(word) or of.is_foreign(self._text[: self._open])

    def _is_word(self, word: str, whole: bool) -> bool:
        """A word of several tokens, in an answer that is in the documents' language so far."""
        of = self._of
        if not of.ordinary or not (word.isascii() and word.isalpha()):
            return True
        if of.has(word) or (not whole and of.begins(word)):
            return True
        if of.ordinary.has(word, whole=whole) or of.ordinary.has_parts(word):
            return True
        return not of.is_native(self._text[: self._open])


def _begins(ordered: Sequence[str], start: str) -> bool:
    at = bisect_left(ordered, start)
    return at < len(ordered) and ordered[at].startswith(start)
