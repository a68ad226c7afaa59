"""Comparing texts by their words: SQuAD's measures, ROUGE, refusals, words and names held."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

from nazx_cli.errors import NazxError
from nazx_cli.reading.words import (
    QUESTION_WORDS,
    STOP_WORDS,
    WORD,
    begins_sentence,
    stem,
    words,
)

_PUNCTUATION = frozenset(string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def normalized(text: str) -> str:
    """``text`` as SQuAD's evaluation compares it (Rajpurkar et al., 2016): lower case, without
    ASCII punctuation, articles and surplus space."""
    text = "".join(c for c in text.lower() if c not in _PUNCTUATION)
    return " ".join(_ARTICLE.sub(" ", text).split())


def exact_match(answer: str, reference: str) -> float:
    """1 where both are the same when normalized."""
    return float(normalized(answer) == normalized(reference))


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words; where one side has none, whether both
    have none (SQuAD 2.0)."""
    got, wanted = normalized(answer).split(), normalized(reference).split()
    if not got or not wanted:
        return float(got == wanted)
    same = sum((Counter(got) & Counter(wanted)).values())
    return 2 * same / (len(got) + len(wanted))


ROUGE_KINDS = ("rouge1", "rouge2", "rougeL")


def check_rouge() -> None:
    """``NazxError`` where the ROUGE library is missing."""
    if find_spec("rouge_score") is None:
        raise NazxError("ROUGE needs the package rouge-score", "pip install 'nazx[eval]'")


def rouge(answer: str, references: Sequence[str], *, stemmed: bool) -> dict[str, float]:
    """ROUGE-1, -2 and -L as F-measures, for each the best over ``references``.

    The library is Google's ``rouge-score``; ``stemmed`` turns its Porter stemmer on, as
    published figures of summaries have it. It knows the letters a to z and digits alone.
    """
    scorer = _scorer(stemmed)
    scores = [scorer.score(reference, answer) for reference in references]
    return {kind: max(score[kind].fmeasure for score in scores) for kind in ROUGE_KINDS}


@cache
def _scorer(stemmed: bool) -> Any:
    check_rouge()
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE_KINDS), use_stemmer=stemmed)


_SOURCE = r"(?:the|this|that|these|those|given|provided)\s+(?:given |provided |above )?" + (
    r"(?:documents?|passages?|texts?|story|stories|books?|context|articles?|sections?|files?"
    r"|notes?|information|paragraphs?|excerpts?)"
)
_SAYS = (
    r"(?:say|tell|mention|state|specify|provide|give|contain|answer|explain|indicate|include"
    r"|describe|reveal|disclose)"
)
_REFUSAL = re.compile(
    rf"^\W*(?:sorry,?\s+|unfortunately,?\s+|but\s+)*(?:"
    rf"{_SOURCE}(?:\s+\w+)?\s+(?:do|does|did)(?:n[’']t|\s+not)\s+(?:\w+ly\s+)?{_SAYS}"
    rf"|(?:it|that|this)\s+is(?:n[’']t|\s+not)\s+(?:\w+ly\s+)?"
    rf"(?:said|told|stated|mentioned|specified|given|described|explained|in\s+the\s)"
    rf"|not\s+(?:stated|mentioned|said|given|specified|found|answerable|in\s+the\s)"
    rf"|there\s+is\s+no\s+(?:information|mention|answer|indication)"
    rf"|no\s+(?:answer|information|mention)\b|nothing\s+(?:was\s+)?found|unanswerable\b"
    rf"|i\s+(?:do\s+not|don[’']t)\s+know|(?:it\s+is\s+)?(?:unknown|not\s+known)\b"
    rf"|(?:it|this|the\s+question)\s+cannot\s+be\s+(?:answered|determined)"
    rf")",
    re.IGNORECASE,
)


def says_not(answer: str) -> bool:
    """Whether ``answer`` begins by telling that the document does not say."""
    return _REFUSAL.match(answer) is not None


_YES_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def yes_or_no(text: str) -> str:
    """The first ``yes`` or ``no`` in ``text``, in lower case, or nothing."""
    found = _YES_NO.search(text)
    return found.group().lower() if found else ""


def holds(text: str, references: Sequence[str]) -> bool | None:
    """Whether all words of content of some reference are among the words of ``text``.

    Words count by their stems. None where no reference has such a word, as "yes".
    """
    wanted = [content(reference) for reference in references]
    wanted = [each for each in wanted if each]
    if not wanted:
        return None
    there = _stems(text)
    return any(each <= there for each in wanted)


def content(text: str) -> frozenset[str]:
    """Stems of the words of ``text`` that are no stop words."""
    return frozenset(stem(word) for word in words(text) if word not in STOP_WORDS)


@lru_cache(maxsize=64)
def _stems(text: str) -> frozenset[str]:
    return frozenset(map(stem, words(text)))


class KnownWords:
    """The words of a document, to tell names that it has from names that it does not have."""

    def __init__(self, text: str) -> None:
        found = set(WORD.findall(text))
        self._common = frozenset(word for word in found if word == word.lower())
        self._stems = frozenset(stem(word.casefold()) for word in found)

    def knows(self, word: str) -> bool:
        """Whether ``word`` stands in the document in some form."""
        return stem(word.casefold()) in self._stems

    def names(self, text: str) -> tuple[str, ...]:
        """Names and numbers in ``text``, each once, in order.

        A name is a capitalised word that the document does not also have in lower case. The
        first word of a sentence is one only if the document has it as a name, or if another
        name follows it: else it cannot be told from ordinary words.
        """
        found: list[str] = []
        matches = list(WORD.finditer(text))
        for at, match in enumerate(matches):
            word = match.group()
            if any(c.isdigit() for c in word):
                if not _counts_items(text, match):
                    found.append(word)
            elif self._may_be_name(word):
                follows = at + 1 < len(matches) and text[match.end() :][:1] == " "
                paired = follows and self._may_be_name(matches[at + 1].group())
                if not begins_sentence(text, match.start()) or paired or self.knows(word):
                    found.append(word)
        return tuple(dict.fromkeys(found))

    def _may_be_name(self, word: str) -> bool:
        lower = word.lower()
        if len(word) < 2 or not word[0].isupper() or lower in self._common:
            return False
        return lower not in STOP_WORDS and lower not in QUESTION_WORDS


def _counts_items(text: str, number: re.Match[str]) -> bool:
    """Whether ``number`` is that of an entry of a list: ``1.``, ``2)`` or ``[3]``."""
    before, after = text[: number.start()][-1:], text[number.end() :][:2]
    if not after[1:].isspace():
        return False
    if after[0] == ".":
        return begins_sentence(text, number.start())
    return (after[0] == ")" and before != "(") or (after[0] == "]" and before == "[")
